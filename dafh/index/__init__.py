"""The case index: codes and public metadata in, the nearest cases out."""
