"""The public Python client."""

from dafh.client.client import Client

__all__ = ["Client"]
