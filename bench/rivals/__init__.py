"""DAFH beside what a user would otherwise build: ``python -m bench.rivals``."""
