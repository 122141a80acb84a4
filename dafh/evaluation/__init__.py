"""Evaluation: metrics and protocol (no torch)."""
