"""The embedded stack: a real Triton, a real Milvus Lite and the gateway, on this machine only."""
