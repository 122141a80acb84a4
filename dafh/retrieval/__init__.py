"""Retrieval: decode, encode, search, and say how far to trust the answer."""
