"""DICOM files that come with pydicom: small, of many kinds, some of them broken."""

from __future__ import annotations

from pathlib import Path

import pydicom


def pydicom_files() -> Path:
    """Return the folder of pydicom's own test files."""
    return Path(pydicom.__file__).with_name("data")
