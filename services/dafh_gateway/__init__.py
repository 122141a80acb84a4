"""The gateway: the public gRPC contract, served on imaging, Triton and Milvus."""
