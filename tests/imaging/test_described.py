"""However pixels are described, rightly or not, there is an image or a refusal."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dafh.errors import InvalidInput
from dafh.imaging.decode import decode
from dafh.imaging.pixels import ONE_SAMPLE, Photometric

from .encoders import PREFIX, encoded, picture, write_compressed
from .instances import write_instance

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
#: JPEG lossless, JPEG-LS, JPEG 2000 and RLE: from 8 or 16 bits.
LOSSLESS = (PREFIX + "4.70", PREFIX + "4.80", PREFIX + "4.90", PREFIX + "5")
FILES = 1500
#: Of a compressed picture: the streams of smaller ones outgrow what an encoder expects.
SIDE = 24
NUMBERS = ("0", "1", "-1", "0.5", "1e308", "-1e308", "1e-308", "40", "2000", "65536")
#: Elements that may be there, each with three numbers of which some are no sense.
PRESENTATION = (
    "ImagerPixelSpacing",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "WindowCenter",
    "WindowWidth",
)
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
MODALITIES = ("CT", "MR", "PT", "XA")


def described(chance: random.Random) -> tuple[int, int, dict[str, Any]]:
    """Return rows, columns and elements that describe pixels, most of them allowed."""
    photometric = chance.choice(list(Photometric))
    allocated = chance.choice((1, 8, 8, 16, 16, 32, 64))
    stored = chance.randint(1, allocated)
    elements: dict[str, Any] = {
        "PhotometricInterpretation": photometric.value,
        "SamplesPerPixel": 1 if photometric in ONE_SAMPLE else 3,
        "PlanarConfiguration": chance.randint(0, 1),
        "BitsAllocated": allocated,
        "BitsStored": stored,
        "HighBit": chance.randint(stored - 1, allocated - 1),
        "PixelRepresentation": chance.randint(0, 1),
        "Modality": chance.choice(MODALITIES),
        "VOILUTFunction": chance.choice(FUNCTIONS),
    }
    for keyword in PRESENTATION:
        if chance.random() < 0.3:
            few = 1 if keyword.startswith("Rescale") else 2
            elements[keyword] = [chance.choice(NUMBERS) for _ in range(few)]
    if chance.random() < 0.3:
        elements["PixelPaddingValue"] = chance.randint(0, 99)
    return chance.randint(1, 9), chance.randint(1, 9), elements


def native(chance: random.Random) -> bytes:
    rows, columns, elements = described(chance)
    frames = chance.randint(1, 3)
    bits = rows * columns * frames * elements["SamplesPerPixel"] * elements["BitsAllocated"]
    pixels = chance.randbytes(-(-bits // 8))
    return write_instance(
        np.zeros((rows, columns), np.uint8),
        syntax=chance.choice(NATIVE),
        **elements,
        NumberOfFrames=frames,
        PixelData=pixels + b"\0" * (len(pixels) % 2),
    )


def compressed(chance: random.Random) -> bytes:
    _, _, elements = described(chance)
    syntax, bits = chance.choice(LOSSLESS), chance.choice((8, 12, 16))
    values = picture(SIDE, SIDE, bits, samples=elements["SamplesPerPixel"])
    stream = encoded(values, syntax, bits)
    pixels = encapsulate([stream + b"\0" * (len(stream) % 2)])
    del elements["HighBit"]
    stored = elements.pop("BitsStored")
    return write_compressed([values], syntax, stored, elements, pixels)


@pytest.mark.parametrize("make", [native, compressed])
def test_any_description_gives_an_image_or_a_refusal(
    make: Callable[[random.Random], bytes],
) -> None:
    chance = random.Random(7)  # noqa: S311 - damage, not secrets
    outcomes: Counter[str] = Counter()
    for _ in range(FILES):
        try:
            image = decode(make(chance), side=8)
        except InvalidInput:
            outcomes["refusal"] += 1
        else:
            assert image.pixels.shape == (1, 8, 8)
            outcomes["image"] += 1
    # Both happen often: neither what is refused anyway nor what is sound finds much.
    assert min(outcomes.values()) > FILES / 10
    assert len(outcomes) == 2
