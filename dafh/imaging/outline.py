"""What a file is, without its pixels: which instance of which series, and what it refers to.

For programs that choose among files before they decode any. A series description may hold a name:
it can be matched here, and does not leave (`Outline.describes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from dafh.errors import InvalidInput
from dafh.imaging.elements import DataSet, Tag
from dafh.imaging.limits import DEFAULT_POLICY, Limits, Policy
from dafh.imaging.metadata import ALLOWED, is_uid
from dafh.imaging.reader import read_instance
from dafh.imaging.sniff import Kind, sniff

#: Key Object Selection Document Storage (PS3.4 B.5).
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"


@dataclass(frozen=True, slots=True, repr=False)
class Outline:
    """What is known of an instance before its pixels are read; "" and 0 where absent."""

    sop_instance_uid: str
    series_instance_uid: str
    modality: str
    #: Instance Number (0020,0013).
    instance_number: int
    #: SOP Instance UIDs that a Key Object Selection names (PS3.3 C.17.6.2.1).
    key_images: tuple[str, ...]
    _series_description: str

    def describes(self, pattern: str) -> bool:
        """Say whether Series Description (0008,103E) has a form such as ``*axial*``, in any case.

        Without one only ``*`` fits.
        """
        return fnmatchcase(self._series_description.lower(), pattern.lower())


def outline(data: bytes, policy: Policy = DEFAULT_POLICY) -> Outline | None:
    """Read a DICOM file up to its pixels; ``None`` for a picture, which has no elements.

    Parameters
    ----------
    data
        The file, or its beginning: what ends before the pixels is refused.
    policy
        What is refused.

    Raises
    ------
    InvalidInput
        As `dafh.imaging.decode.decode`, where the elements are at fault.
    """
    if sniff(data, policy) is not Kind.DICOM:
        return None
    data_set = read_instance(data, policy.limits).data_set
    return Outline(
        sop_instance_uid=_uid(data_set, Tag.SOP_INSTANCE_UID),
        series_instance_uid=_uid(data_set, Tag.SERIES_INSTANCE_UID),
        modality=_modality(data_set),
        instance_number=_number(data_set),
        key_images=tuple(_key_images(data_set)),
        _series_description=data_set.text(Tag.SERIES_DESCRIPTION),
    )


def referenced_files(data: bytes, limits: Limits) -> list[tuple[str, ...]]:
    """Return the files that a DICOMDIR names, each as its components from the root (PS3.10 8.2).

    Raises
    ------
    InvalidInput
        It is no DICOM file, or a damaged one.
    """
    data_set = read_instance(data, limits).data_set
    named = (
        record.texts(Tag.REFERENCED_FILE_ID)
        for record in data_set.items(Tag.DIRECTORY_RECORD_SEQUENCE)
    )
    # Names, not ways out of the folder.
    return [
        parts
        for parts in named
        if parts and not any(part in {"", ".", ".."} or "/" in part for part in parts)
    ]


def _key_images(data_set: DataSet) -> list[str]:
    if data_set.text(Tag.SOP_CLASS_UID) != KEY_OBJECT_SELECTION:
        return []
    return [
        _uid(instance, Tag.REFERENCED_SOP_INSTANCE_UID)
        for study in data_set.items(Tag.CURRENT_EVIDENCE_SEQUENCE)
        for series in study.items(Tag.REFERENCED_SERIES_SEQUENCE)
        for instance in series.items(Tag.REFERENCED_SOP_SEQUENCE)
    ]


def _uid(data_set: DataSet, tag: Tag) -> str:
    uid = data_set.text(tag)
    return uid if is_uid(uid) else ""


def _modality(data_set: DataSet) -> str:
    text = data_set.text(Tag.MODALITY)
    return text if ALLOWED["modality"].accept(text) else ""


def _number(data_set: DataSet) -> int:
    try:
        return data_set.integer(Tag.INSTANCE_NUMBER, 0)
    except InvalidInput:
        # Text where a number belongs: as good as none.
        return 0
