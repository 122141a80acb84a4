"""Where files come from: folders, manifests, archives, object stores; read once, one at a time."""

from dafh_jobs.sources.entry import Content, Entry, Labels, LabelTable, UnreadableError
from dafh_jobs.sources.opened import check, count, entries, read_labels, require_there

__all__ = [
    "Content",
    "Entry",
    "LabelTable",
    "Labels",
    "UnreadableError",
    "check",
    "count",
    "entries",
    "read_labels",
    "require_there",
]
