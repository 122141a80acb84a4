"""The public Python client."""

from dafh.client.aio import AsyncClient
from dafh.client.channel import Target, Tls
from dafh.client.client import Client
from dafh.client.errors import error_in
from dafh.client.requests import question
from dafh.client.table import to_pandas

__all__ = ["AsyncClient", "Client", "Target", "Tls", "error_in", "question", "to_pandas"]
