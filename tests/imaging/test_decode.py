"""The one door: the same bytes give the same image, in every transfer syntax."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEGBaseline8Bit

from dafh.errors import InvalidInput, Reason
from dafh.imaging.decode import REPRESENTATIVE, decode, render
from dafh.imaging.image import IMAGING_VERSION, PatientKeyer
from dafh.imaging.metadata import UID_PATTERN
from dafh.imaging.phantom import Phantom
from dafh.imaging.resize import crop_padding, letterbox

from .instances import MakeInstance, reread, write_instance

#: Modality and end of the transfer syntax UID -> start of the SHA-256 of the pixels of the first
#: such phantom at side 128. Raise IMAGING_VERSION together with any change here.
GOLDEN = {
    "CT .1": "2b5bf078218d2fee",
    "CT .1.99": "1a9cd3fe8331fa80",
    "CT .4.80": "18c1c31bbacbc085",
    "CT .4.90": "ed7cb688630317a5",
    "MG .4.90": "b02ce0be01844c12",
    "MR ": "f5f5b385634264ea",
    "MR .1": "2a185363244ea35b",
    "MR .1.99": "d6a45b15565aee2b",
    "MR .2": "24d249a9d0181aac",
    "MR .5": "372f689a77c7ba40",
    "PT .4.90": "b4e4583427455ced",
    "PT .5": "525c53676440f1f3",
    "US .4.50": "3d1e9fd449ff16eb",
    "US .5": "363a172d251a5358",
}
GOLDEN_VERSION = 2


def golden_key(modality: str, transfer_syntax: str) -> str:
    return f"{modality} {transfer_syntax.removeprefix('1.2.840.10008.1.2')}"


def test_golden_outputs_stand(sample: list[Phantom]) -> None:
    found: dict[str, str] = {}
    for phantom in sample:
        image = decode(phantom.data, side=128)
        key = golden_key(phantom.modality, image.metadata.transfer_syntax)
        found.setdefault(key, hashlib.sha256(image.pixels.tobytes()).hexdigest()[:16])
    assert found == GOLDEN
    assert IMAGING_VERSION == GOLDEN_VERSION


def test_same_bytes_give_the_same_image(sample: list[Phantom]) -> None:
    keyer = PatientKeyer(b"k" * 32, "default")
    for phantom in sample[:12]:
        first, second = (decode(phantom.data, side=96, keyer=keyer) for _ in range(2))
        assert np.array_equal(first.pixels, second.pixels)
        assert (first.content_sha256, first.metadata) == (second.content_sha256, second.metadata)
        assert first.pixels.shape == (1, 96, 96)
        assert first.pixels.dtype == np.uint8


def test_stored_values_and_greys_agree_with_pydicom(sample: list[Phantom]) -> None:
    compared = 0
    for phantom in sample:
        data_set = reread(phantom.data)
        lossy = data_set.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        if lossy or data_set.SamplesPerPixel != 1 or "WindowCenter" not in data_set:
            continue
        stored = pixel_array(data_set, index=0)
        values = apply_modality_lut(stored, data_set)
        low, high = value_range(data_set.BitsStored, data_set.PixelRepresentation)
        slope = float(data_set.get("RescaleSlope", 1))
        intercept = float(data_set.get("RescaleIntercept", 0))
        low, high = low * slope + intercept, high * slope + intercept
        grey = (apply_voi_lut(values, data_set) - low) / (high - low) * 255
        if data_set.PhotometricInterpretation == "MONOCHROME1":
            grey = 255 - grey
        ours, _ = render(phantom.data)
        assert np.abs(ours - grey).max() <= 1, phantom.file_name
        compared += 1
    assert compared >= 10


def value_range(bits: int, signed: int) -> tuple[float, float]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def test_an_8_bit_grey_png_is_what_training_sees(sample: list[Phantom]) -> None:
    for phantom in sample[:8]:
        grey, _ = render(phantom.data)
        stream = io.BytesIO()
        Pillow.fromarray(grey).save(stream, "PNG")
        data = stream.getvalue()
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        trained = letterbox(crop_padding(np.asarray(read, np.uint8)), 160)
        assert np.array_equal(decode(data, side=160).pixels[0], trained)


@pytest.mark.parametrize(
    ("mode", "tolerance"), [("L", 0), ("RGB", 1), ("RGBA", 1), ("P", 1), ("LA", 0), ("1", 0)]
)
def test_every_kind_of_png_becomes_its_luminance(mode: str, tolerance: int) -> None:
    rng = np.random.default_rng(1)
    colours = Pillow.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).convert(mode)
    stream = io.BytesIO()
    colours.save(stream, "PNG")
    grey, aspect = render(stream.getvalue())
    expected = np.asarray(colours.convert("RGB").convert("L"), np.int16)
    assert np.abs(grey - expected).max() <= tolerance
    assert aspect == 1


def test_jpeg_file_becomes_its_luminance() -> None:
    x = np.linspace(0, 255, 64)
    colours = np.stack(np.broadcast_arrays(x[:, None], x[None], 128), axis=2).astype(np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(colours).save(stream, "JPEG", quality=95)
    grey, _ = render(stream.getvalue())
    expected = np.asarray(Pillow.fromarray(colours).convert("L"), np.int16)
    assert np.abs(grey - expected).max() <= 4


def test_a_png_gets_a_valid_uid_that_names_its_content(sample: list[Phantom]) -> None:
    uids = []
    for phantom in sample[:4]:
        stream = io.BytesIO()
        Pillow.fromarray(render(phantom.data)[0]).save(stream, "PNG")
        image = decode(stream.getvalue(), side=32)
        again = decode(stream.getvalue(), side=64)
        assert image.metadata.sop_instance_uid == again.metadata.sop_instance_uid
        uids.append(image.metadata.sop_instance_uid)
    assert len(set(uids)) == len(uids)
    assert all(UID_PATTERN.fullmatch(uid) and len(uid) <= 64 for uid in uids)


def frames(count: int) -> np.ndarray:
    """Return frames uint8 ``[count, 8, 8]`` with a bright square that wanders."""
    values = np.zeros((count, 8, 8), np.uint8)
    for index in range(count):
        values[index, index % 8, :] = 200 + index
    return values


def test_only_the_frame_asked_for_comes(make_instance: MakeInstance) -> None:
    values = frames(5)
    data = make_instance(
        values[0], NumberOfFrames=5, PixelData=values.tobytes(), WindowCenter=128, WindowWidth=256
    )
    for number in range(1, 6):
        assert decode(data, side=8, frame=number).frame == number
        assert np.array_equal(render(data, frame=number)[0], values[number - 1])
    hashes = {decode(data, side=8, frame=number).content_sha256 for number in range(1, 6)}
    assert len(hashes) == 5


def test_representative_is_the_named_frame_else_the_middle(make_instance: MakeInstance) -> None:
    values = frames(5)
    plain = make_instance(values[0], NumberOfFrames=5, PixelData=values.tobytes())
    assert decode(plain, side=8, frame=REPRESENTATIVE).frame == 3
    for named, expected in ((2, 2), (9, 3)):
        data = make_instance(
            values[0],
            NumberOfFrames=5,
            PixelData=values.tobytes(),
            RepresentativeFrameNumber=named,
        )
        assert decode(data, side=8, frame=REPRESENTATIVE).frame == expected


def test_a_frame_that_is_not_there_is_refused(make_instance: MakeInstance) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(make_instance(), side=8, frame=2)
    assert caught.value.reason is Reason.FRAME_OUT_OF_RANGE
    assert caught.value.subject == "(0028,0008)"


def test_pixels_that_are_not_square_keep_the_shape_of_the_body(make_instance: MakeInstance) -> None:
    rows = np.zeros((20, 40), np.uint8)
    rows[::2] = 255
    data = make_instance(rows, PixelSpacing=["2", "1"], WindowCenter=128, WindowWidth=256)
    inside = decode(data, side=40).pixels[0]
    assert all(inside[row].max() > 0 for row in range(38))
    ratio = make_instance(rows, PixelAspectRatio=["2", "1"], WindowCenter=128, WindowWidth=256)
    assert np.array_equal(decode(ratio, side=40).pixels[0], inside)


def test_content_hash_is_of_the_pixels_and_not_of_the_file(make_instance: MakeInstance) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    plain = decode(make_instance(values), side=16)
    big = decode(make_instance(values.byteswap(), syntax="1.2.840.10008.1.2.2"), side=16)
    deflated = decode(make_instance(values, syntax="1.2.840.10008.1.2.1.99"), side=16)
    relabelled = make_instance(values, PatientID="TEST-2", WindowCenter=9, WindowWidth=9)
    other = decode(relabelled, side=16)
    assert len({one.content_sha256 for one in (plain, big, deflated, other)}) == 1
    values[3, 3] += 1
    assert decode(make_instance(values), side=16).content_sha256 != plain.content_sha256


def test_a_query_gets_the_same_image_without_the_content_hash(sample: list[Phantom]) -> None:
    for phantom in sample[:12]:
        case = decode(phantom.data, side=32)
        query = decode(phantom.data, side=32, content_hash=False)
        assert np.array_equal(query.pixels, case.pixels)
        assert replace(query, pixels=case.pixels) == replace(case, content_sha256="")
        assert case.content_sha256


def test_a_dicom_file_that_is_a_picture_as_well_is_read_as_dicom() -> None:
    data = write_instance()
    for start in (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"):
        both = start + data[len(start) :]
        assert np.array_equal(render(both)[0], render(data)[0])


def test_unused_bits_are_no_part_of_a_value(make_instance: MakeInstance) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    clean = make_instance(values, BitsStored=12, HighBit=11)
    overlaid = make_instance(values | 0xA000, BitsStored=12, HighBit=11)
    assert np.array_equal(render(clean)[0], render(overlaid)[0])
    first, second = decode(clean, side=8), decode(overlaid, side=8)
    assert first.content_sha256 == second.content_sha256
    signed = make_instance(values & 0xFFF, BitsStored=8, HighBit=7, PixelRepresentation=1)
    grey, _ = render(signed)
    assert grey[8, 0] == 0
    assert all(before <= after for before, after in pairwise(grey[:8].ravel()))


def test_monochrome1_is_the_negative_of_monochrome2(make_instance: MakeInstance) -> None:
    shown = {"WindowCenter": 128, "WindowWidth": 256}
    high_is_white, _ = render(make_instance(**shown))
    high_is_black, _ = render(make_instance(PhotometricInterpretation="MONOCHROME1", **shown))
    assert np.array_equal(high_is_white, 255 - high_is_black)


def test_padding_is_black_and_does_not_move_the_window(make_instance: MakeInstance) -> None:
    values = np.arange(256, dtype=np.int16).reshape(16, 16)
    plain, _ = render(make_instance(values))
    values[0, :4] = -2000
    padded, _ = render(make_instance(values, PixelPaddingValue=-2000))
    assert not padded[0, :4].any()
    assert np.abs(padded[8:].astype(int) - plain[8:]).max() <= 4
    inverted = make_instance(
        values, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1"
    )
    assert not render(inverted)[0][0, :4].any()
