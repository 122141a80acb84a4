"""Export: from a training run to a version in Triton's model repository."""
