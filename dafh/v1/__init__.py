"""Generated from `protos/dafh/v1` by `make protos`: messages and stubs of the public contract."""
