"""Files from the field: an image or a typed refusal for each, soon."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pydicom.data
import pytest

from dafh.errors import DafhError, Reason
from dafh.imaging.decode import decode

SHARED = Path(__file__).parents[3] / "shared" / "dicom"
BUNDLED = Path(pydicom.data.__file__).parent / "test_files"
#: Of the processor: a busy machine must not decide.
SECONDS = 10

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
#: Files whose pixels another reader decodes, and why they are refused here.
EXPLAINED = {
    "dicomParser__CT0012.fragmented_no_bot_jpeg_baseline.51.dcm": (
        Reason.TRANSFER_SYNTAX_UNSUPPORTED  # 12-bit JPEG
    ),
    "pylibjpegdata__JPEGLossless_1s_1f_i_16_16_bad.dcm": Reason.TRANSFER_SYNTAX_UNSUPPORTED,
    "pydicomdata__gdcm-US-ALOKA-16.dcm": Reason.PHOTOMETRIC_UNSUPPORTED,  # segmented palette
    "robyoung__MR1_JLSL.dcm": Reason.PIXELS_UNDECODABLE,  # CharLS refuses the stream
    "fo-dicom__CR-ModalitySequenceLUT.dcm": Reason.UID_INVALID,
    "pydicomdata__JLSL_RGB_ILV0.dcm": Reason.UID_INVALID,
    "pydicomdata__JLSL_RGB_ILV2.dcm": Reason.UID_INVALID,
}


def outcome(data: bytes) -> Reason | None:
    """Return the reason of a refusal, `None` for an image."""
    started = time.process_time()
    try:
        image = decode(data, side=128)
    except DafhError as error:
        return error.reason
    finally:
        assert time.process_time() - started < SECONDS
    assert image.pixels.shape == (1, 128, 128)
    return None


@pytest.mark.skipif(not SHARED.exists(), reason="the shared DICOM files are not here")
def test_every_shared_file_gives_an_image_or_an_explained_refusal() -> None:
    with (SHARED / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    images = 0
    for row in rows:
        reason = outcome((SHARED / row["file"]).read_bytes())
        images += reason is None
        if reason is None or not row["decode_pydicom3_pylibjpeg"].startswith("ok"):
            continue
        lossless = row["transfer_syntax_uid"] == JPEG_LOSSLESS
        usual = Reason.TRANSFER_SYNTAX_UNSUPPORTED if lossless else None
        assert reason is EXPLAINED.get(row["file"], usual), row["file"]
    assert images >= 148


def test_every_file_that_pydicom_brings_gives_an_image_or_a_refusal() -> None:
    files = [path for path in sorted(BUNDLED.rglob("*")) if path.is_file()]
    reasons = [outcome(path.read_bytes()) for path in files]
    assert reasons.count(None) >= 60
