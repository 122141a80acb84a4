"""What was done to an image and what was odd about it, collected on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dafh.errors import InvalidInput
from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.refusal import tag_name


@dataclass(slots=True)
class Notes:
    """Steps and warnings, in order; free of patient identity, for people."""

    applied: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def numbers(self, data_set: DataSet, tag: Tag, *, signed: bool = False) -> tuple[float, ...]:
        """Return the numbers of an element that only shapes the presentation.

        An unreadable one is left out with a warning: many writers get these wrong, and the image
        can be shown without.
        """
        try:
            return data_set.numbers(tag, signed=signed)
        except InvalidInput as error:
            self.ignored(tag, error)
            return ()

    def ignored(self, tag: Tag, error: InvalidInput) -> None:
        """Warn that an element was left out."""
        self.warnings.append(f"{tag_name(tag)} ignored: {error.reason.value}")


class Scopes:
    """Where a frame's attributes are looked for: its own functional groups, the shared, the root.

    Multi-frame Functional Groups: PS3.3 C.7.6.16. In files without them only the root is left.
    """

    __slots__ = ("_data_sets",)

    #: Functional group macros whose elements are used.
    MACROS = (
        Tag.PIXEL_MEASURES_SEQUENCE,
        Tag.FRAME_VOI_LUT_SEQUENCE,
        Tag.PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
        Tag.FRAME_ANATOMY_SEQUENCE,
    )

    def __init__(self, root: DataSet, frame: int) -> None:
        per_frame = root.items(Tag.PER_FRAME_FUNCTIONAL_GROUPS)[frame - 1 : frame]
        groups = [*per_frame, *root.items(Tag.SHARED_FUNCTIONAL_GROUPS)]
        macros = [item for group in groups for macro in self.MACROS for item in group.items(macro)]
        self._data_sets: Sequence[DataSet] = [*macros, root]

    @property
    def root(self) -> DataSet:
        """The instance's own data set."""
        return self._data_sets[-1]

    def having(self, *tags: Tag) -> DataSet:
        """Return the nearest data set with a value for one of `tags`, the root if none has."""
        for found in self._data_sets:
            if any(tag in found for tag in tags):
                return found
        return self.root
