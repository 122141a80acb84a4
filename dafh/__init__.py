"""Deep Attention Fusion Hashing: find the past cases that look like this image."""
