"""Training: manifests in, runs (checkpoint, metrics) out (torch)."""
