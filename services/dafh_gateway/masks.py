"""Read masks: which fields of an answer a caller wants (AIP-157)."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from dafh.errors import InvalidInput, Reason

#: Most paths of a mask.
MOST = 100
EVERYTHING = "*"


class _Tree(dict[str, "_Tree"]):
    """Fields and the fields of theirs that are wanted; none for all."""


class Mask:
    """The fields that are wanted, as a tree; a field without children is wanted whole.

    Parameters
    ----------
    mask
        Paths such as ``hits.case.name``; unlike elsewhere a path may lead through a list.
    of
        The message that it is applied to.

    Raises
    ------
    InvalidInput
        A path leads nowhere.
    """

    def __init__(self, mask: FieldMask, of: Descriptor) -> None:
        self._tree = _Tree()
        if len(mask.paths) > MOST:
            raise _wrong(f"has more than {MOST} paths")
        for path in mask.paths:
            if path != EVERYTHING:
                self._add(path.split("."), of)
        self._everything = not mask.paths or EVERYTHING in mask.paths

    def names(self, path: str) -> bool:
        """Say whether a field, or what it is part of, is wanted."""
        if self._everything:
            return True
        tree = self._tree
        for name in path.split("."):
            if name not in tree:
                return False
            tree = tree[name]
            if not tree:
                return True
        return True

    def apply(self, message: Message) -> None:
        """Clear what is not wanted."""
        if not self._everything:
            _keep(message, self._tree)

    def _add(self, names: list[str], of: Descriptor) -> None:
        tree = self._tree
        descriptor: Descriptor | None = of
        for name in names:
            field = descriptor.fields_by_name.get(name) if descriptor else None
            if field is None:
                raise _wrong(f"has a path that {of.name} does not have")
            descriptor = field.message_type
            if name in tree and not tree[name]:
                # It is wanted whole already.
                return
            tree = tree.setdefault(name, _Tree())
        tree.clear()


def _keep(message: Message, tree: _Tree) -> None:
    for field, value in message.ListFields():
        if field.name not in tree:
            message.ClearField(field.name)
        elif tree[field.name]:
            for part in value if field.is_repeated else [value]:
                _keep(part, tree[field.name])


def _wrong(fault: str) -> InvalidInput:
    return InvalidInput(Reason.ARGUMENT_INVALID, f"read_mask {fault}.", subject="read_mask")
