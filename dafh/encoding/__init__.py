"""Encoders: images in, hash outputs out."""
