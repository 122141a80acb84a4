"""Evaluation: manifests, metrics and protocol (no torch)."""
