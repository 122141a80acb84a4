"""Ingest: decode, encode, upsert; the gateway and jobs both write through here."""
