"""Code is changed in small ways, and the unit tests must notice (docs/mutants.md)."""
