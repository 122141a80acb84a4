"""Filters: which cases may answer, from the text of a caller to what an index understands."""
