"""Every transfer syntax gives back what was stored, or says that it cannot."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dafh.errors import InvalidInput, Reason
from dafh.imaging.codecs import CODECS, codec_for, decode_frame
from dafh.imaging.decode import decode
from dafh.imaging.limits import DEFAULT_LIMITS
from dafh.imaging.pixels import Photometric, PixelFormat, Stored

from .encoders import (
    ENCODERS,
    PREFIX,
    Values,
    encoded,
    high_throughput,
    jpeg,
    jpeg_2000,
    jpeg_ls_stream,
    picture,
    progressive,
    rle,
    signed,
    write_compressed,
)

BASELINE, EXTENDED, PROGRESSIVE = PREFIX + "4.50", PREFIX + "4.51", PREFIX + "4.55"
LOSSLESS_JPEG, JPEG_LS, NEAR_LOSSLESS = PREFIX + "4.70", PREFIX + "4.80", PREFIX + "4.81"
JPEG_2000, JPEG_2000_LOSSY, RLE = PREFIX + "4.90", PREFIX + "4.91", PREFIX + "5"
JPEG_XL, RECOMPRESSED, HTJ2K = PREFIX + "4.110", PREFIX + "4.111", PREFIX + "4.201"
DEFLATED, UNCOMPRESSED = PREFIX + "8.1", PREFIX + "1.98"
LOSSLESS = sorted(syntax for syntax in ENCODERS if CODECS[syntax].lossless)
#: Transfer syntax -> bits, largest error in thousandths of the range. The pictures are smooth.
LOSSY = {
    BASELINE: (8, 40),
    EXTENDED: (12, 20),
    PROGRESSIVE: (8, 40),
    NEAR_LOSSLESS: (12, 1),
    JPEG_2000_LOSSY: (12, 20),
    RECOMPRESSED: (8, 40),
    PREFIX + "4.112": (12, 60),
    PREFIX + "4.203": (16, 20),
}


def form_of(values: Values, bits: int | None = None) -> PixelFormat:
    allocated = 8 * values.dtype.itemsize
    samples = 1 if values.ndim == 2 else values.shape[2]
    return PixelFormat(
        rows=values.shape[0],
        columns=values.shape[1],
        samples=samples,
        photometric=Photometric.MONOCHROME2 if samples == 1 else Photometric.RGB,
        frames=1,
        allocated=allocated,
        stored=bits or allocated,
        high_bit=(bits or allocated) - 1,
        signed=values.dtype.kind == "i",
        by_plane=False,
        floating=False,
    )


def decoded(syntax: str, stream: bytes, form: PixelFormat) -> Stored:
    return decode_frame(codec_for(syntax), stream, form, DEFAULT_LIMITS)


def refusal(syntax: str, stream: bytes, form: PixelFormat) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decoded(syntax, stream, form)
    assert caught.value.remedy
    return caught.value


def is_undecodable(syntax: str, stream: bytes, form: PixelFormat) -> bool:
    return refusal(syntax, stream, form).reason is Reason.PIXELS_UNDECODABLE


def same(stored: Stored, values: Values, bits: int) -> bool:
    return bool(
        np.array_equal(stored.values, values)
        and stored.values.dtype.kind == values.dtype.kind
        and stored.sha256() == Stored(values, bits, Photometric.MONOCHROME2).sha256()
    )


def test_every_row_of_the_table_is_tried() -> None:
    # Those without an encoder share their decoder and their kind of stream with one that has one.
    untried = {
        PREFIX + "4.53": PROGRESSIVE,
        PREFIX + "4.92": JPEG_2000,
        PREFIX + "4.93": JPEG_2000_LOSSY,
        PREFIX + "4.202": HTJ2K,
    }
    assert set(CODECS) - set(ENCODERS) == set(untried)
    for syntax, like in untried.items():
        assert replace(CODECS[syntax], transfer_syntax=like) == CODECS[like]


@pytest.mark.parametrize("syntax", LOSSLESS)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    bits=st.sampled_from([8, 10, 12, 15, 16]),
    samples=st.sampled_from([1, 1, 3]),
    sign=st.booleans(),
    noise=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_lossless_gives_back_every_bit_and_the_same_content_hash(
    syntax: str,
    rows: int,
    columns: int,
    bits: int,
    samples: int,
    sign: bool,
    noise: bool,
    seed: int,
) -> None:
    # The encoder, not the decoder, has no room for streams larger than the pixels.
    assume(syntax != JPEG_LS or rows * columns >= 256)
    values = picture(rows, columns, bits, samples=samples, seed=seed)
    if noise:
        chance = np.random.default_rng(seed)
        top = 2 ** (bits - 1 if syntax == JPEG_LS else bits)
        values = chance.integers(0, top, values.shape).astype(values.dtype)
    if sign and samples == 1:
        values = signed(values, bits)
    stored = decoded(syntax, encoded(values, syntax, bits), form_of(values, bits))
    assert same(stored, values, bits)


@pytest.mark.parametrize("syntax", LOSSY)
@given(rows=st.integers(8, 60), columns=st.integers(8, 60), sign=st.booleans())
@settings(max_examples=10, deadline=None)
def test_lossy_stays_near_and_keeps_the_sign(
    syntax: str, rows: int, columns: int, sign: bool
) -> None:
    bits, error = LOSSY[syntax]
    values = picture(rows, columns, bits)
    if sign and bits > 8:
        # Only JPEG 2000 knows signs: to any other codec, -1 and 0 are far from each other.
        knows = CODECS[syntax].decode is CODECS[JPEG_2000].decode
        values = signed(values, bits) if knows else (values // 4 + 99).view(np.int16)
    stored = decoded(syntax, encoded(values, syntax, bits), form_of(values, bits))
    assert stored.values.dtype.kind == values.dtype.kind
    assert stored.values.shape == values.shape
    assert stored.bits == bits
    far = np.abs(stored.values.astype(np.int64) - values)
    assert far.max() <= 2**bits * error / 1000


@pytest.mark.parametrize("syntax", LOSSY)
def test_lossy_colours_come_in_their_order(syntax: str) -> None:
    bits = min(LOSSY[syntax][0], 8 if syntax == PROGRESSIVE else 16)
    values = picture(48, 40, bits, samples=3)
    stored = decoded(syntax, encoded(values, syntax, bits), form_of(values, bits))
    assert stored.photometric is Photometric.RGB
    far = np.abs(stored.values.astype(np.int64) - values).mean(axis=(0, 1))
    assert far.max() <= 2**bits / 20


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", range(2, 17))
def test_jpeg_lossless_takes_every_selection_value_and_precision(predictor: int, bits: int) -> None:
    values = picture(13, 17, bits)
    stream = jpeg(values, bits, lossless=True, predictor=predictor)
    form = form_of(values, bits)
    assert same(decoded(PREFIX + "4.57", stream, form), values, bits)


@pytest.mark.parametrize("interleave", [0, 1, 2])
def test_jpeg_ls_takes_every_interleave_mode(interleave: int) -> None:
    values = picture(13, 17, 8, samples=3)
    stored = decoded(JPEG_LS, jpeg_ls_stream(values, 8, interleave=interleave), form_of(values))
    assert same(stored, values, 8)


@pytest.mark.parametrize("pixels", [(8, 8), (5, 7), (1, 1), (3, 3)])
@pytest.mark.parametrize("syntax", [RLE, DEFLATED, UNCOMPRESSED, JPEG_2000])
def test_single_bits_need_no_byte_border(syntax: str, pixels: tuple[int, int]) -> None:
    bits = np.random.default_rng(1).integers(0, 2, pixels).astype(np.uint8)
    packed = np.packbits(bits.reshape(-1), bitorder="little")
    form = replace(form_of(bits), allocated=1, stored=1, high_bit=0)
    if syntax == JPEG_2000:
        stream = jpeg_2000(bits, 1, reversible=True)
    else:
        stream = encoded(packed[None], syntax)
    assert same(decoded(syntax, stream, form), bits, 1)


@pytest.mark.parametrize("syntax", [JPEG_LS, LOSSLESS_JPEG, JPEG_2000, HTJ2K, RLE, DEFLATED])
@pytest.mark.parametrize("sign", [False, True])
def test_bits_beyond_bits_stored_are_no_part_of_a_value(syntax: str, sign: bool) -> None:
    values = picture(20, 20, 12)
    values = signed(values, 12) if sign else values
    # An old overlay, and for signed values a sign that was not extended.
    cells = ((values.view(np.uint16) & 0x0FFF) | 0xA000).view(values.dtype)
    form = form_of(values, 12)
    assert same(decoded(syntax, encoded(cells, syntax, 16), form), values, 12)


def test_the_high_bit_says_where_a_value_lies() -> None:
    values = picture(20, 20, 12)
    form = replace(form_of(values, 12), high_bit=15)
    assert same(decoded(RLE, encoded(values << 4, RLE, 16), form), values, 12)
    assert same(decoded(JPEG_LS, encoded(values << 4, JPEG_LS, 16), form), values, 12)


def test_a_lossy_overshoot_does_not_wrap() -> None:
    values = picture(20, 20, 12)
    stored = decoded(NEAR_LOSSLESS, encoded(values, NEAR_LOSSLESS, 12), form_of(values, 10))
    assert stored.bits == 12
    assert np.abs(stored.values.astype(int) - values).max() <= 2
    low = values // 8
    stored = decoded(NEAR_LOSSLESS, encoded(low, NEAR_LOSSLESS, 12), form_of(low, 10))
    assert stored.bits == 10


@pytest.mark.parametrize("by_stream", [False, True])
@pytest.mark.parametrize(("bits", "precision"), [(12, 12), (16, 16), (12, 16)])
def test_a_sign_counts_where_jpeg_2000_stream_and_data_set_disagree(
    bits: int, precision: int, by_stream: bool
) -> None:
    values = signed(picture(20, 20, bits), bits)
    other = (values.view(np.uint16) & (1 << bits) - 1).astype(np.uint16)
    written, label = (values, other) if by_stream else (other, values)
    stored = decoded(JPEG_2000, encoded(written, JPEG_2000, precision), form_of(label, bits))
    assert same(stored, values, bits)


def test_a_sign_that_only_the_stream_knows_is_a_warning() -> None:
    values = signed(picture(20, 20, 16), 16)
    # Encoded as signed; the elements say the opposite.
    elements = {"PixelRepresentation": 0}
    data = write_compressed([values], JPEG_2000, 16, elements)
    image = decode(data, side=20)
    assert [warning for warning in image.warnings if "(0028,0103)" in warning]
    truth = decode(write_compressed([values], JPEG_2000, 16, {}), side=20)
    assert np.array_equal(image.pixels, truth.pixels)
    assert image.content_sha256 == truth.content_sha256
    assert not truth.warnings


def test_a_jp2_wrapping_is_taken_off_and_changes_nothing() -> None:
    values = picture(20, 20, 8, samples=3)
    wrapped = jpeg_2000(values, 8, reversible=True, codecformat="JP2")
    assert wrapped.startswith(b"\0\0\0\x0cjP  ")
    assert same(decoded(JPEG_2000, wrapped, form_of(values)), values, 8)


def test_high_throughput_is_read_under_any_label_of_jpeg_2000() -> None:
    values = picture(20, 20, 16)
    stream = high_throughput(values, 16, reversible=True)
    assert same(decoded(JPEG_2000, stream, form_of(values)), values, 16)


def test_jpeg_ls_is_read_under_a_label_of_jpeg_and_the_other_way_round() -> None:
    values = picture(20, 20, 16)
    for label, kind in ((BASELINE, JPEG_LS), (JPEG_LS, LOSSLESS_JPEG)):
        stored = decoded(label, encoded(values, kind, 16), form_of(values))
        assert np.array_equal(stored.values, values)


@pytest.mark.parametrize("words", ["names", "Adobe", "JFIF", "none"])
@pytest.mark.parametrize("label", [Photometric.RGB, Photometric.YBR_FULL_422])
def test_the_word_of_a_jpeg_stream_on_its_colours_outweighs_the_label(
    words: str, label: Photometric
) -> None:
    values = picture(16, 16, 8, samples=3)
    stream = jpeg(values, 8, level=95)
    if words in ("JFIF", "none"):
        # Neither word: no application data, and components that are only numbered.
        stream = stream.replace(b"R\x11", b"\1\x11").replace(b"G\x11", b"\2\x11")
        stream = stream.replace(b"B\x11", b"\3\x11").replace(b"\3R\0G\0B\0", b"\3\1\0\2\0\3\0")
        adobe = stream.index(b"\xff\xee")
        stream = stream[:adobe] + stream[adobe + 16 :]
    if words == "JFIF":
        stream = (
            stream[:2] + bytes.fromhex("ffe00010 4a46494600 0101 00 00010001 0000") + stream[2:]
        )
    if words == "Adobe":
        stream = stream.replace(b"R\x11", b"\1\x11").replace(b"\3R\0", b"\3\1\0")
    stored = decoded(BASELINE, stream, replace(form_of(values), photometric=label))
    expected = {"names": "RGB", "Adobe": "RGB", "JFIF": "YBR_FULL"}.get(words)
    assert stored.photometric == (expected or ("RGB" if label == "RGB" else "YBR_FULL"))
    # Whatever it is called, nothing was converted.
    assert np.abs(stored.values.astype(int) - values).mean() < 4


@cache
def sample(syntax: str) -> tuple[Values, bytes, PixelFormat]:
    bits = 16 if CODECS[syntax].lossless else LOSSY[syntax][0]
    values = picture(64, 48, bits)
    return values, encoded(values, syntax, bits), form_of(values, bits)


@pytest.mark.parametrize("syntax", sorted(ENCODERS))
def test_a_stream_cut_anywhere_gives_the_whole_picture_or_a_refusal(syntax: str) -> None:
    _, stream, form = sample(syntax)
    whole = decoded(syntax, stream, form).sha256()
    last = range(max(1, len(stream) - 40), len(stream))
    for length in sorted({*range(0, len(stream), max(1, len(stream) // 150)), *last}):
        try:
            found = decoded(syntax, stream[:length], form).sha256()
        except InvalidInput as error:
            found = error.reason
        expected = {Reason.PIXELS_UNDECODABLE} | ({whole} if length >= len(stream) - 8 else set())
        assert found in expected, f"{length} of {len(stream)}"


@pytest.mark.parametrize(
    "syntax", [BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS_JPEG, JPEG_LS, JPEG_2000]
)
def test_an_end_marker_behind_a_cut_hides_nothing(syntax: str) -> None:
    _, stream, form = sample(syntax)
    for share in (0.3, 0.5, 0.7, 0.9):
        assert is_undecodable(syntax, stream[: int(len(stream) * share)] + b"\xff\xd9", form)


@pytest.mark.parametrize("syntax", [BASELINE, EXTENDED, LOSSLESS_JPEG, JPEG_LS, JPEG_2000, HTJ2K])
def test_a_forgotten_end_marker_or_padding_costs_nothing(syntax: str) -> None:
    _, stream, form = sample(syntax)
    whole = decoded(syntax, stream, form).sha256()
    assert stream.endswith(b"\xff\xd9")
    for odd in (stream[:-2], stream + b"\0", stream + b"\xff", stream + bytes(9)):
        assert decoded(syntax, odd, form).sha256() == whole
    if syntax in (BASELINE, EXTENDED, LOSSLESS_JPEG):
        assert decoded(syntax, stream[:-2] + b"\xff\xff\xff\xd9", form).sha256() == whole


@pytest.mark.parametrize("syntax", [BASELINE, LOSSLESS_JPEG])
def test_a_picture_whose_last_row_is_mid_grey_is_whole(syntax: str) -> None:
    values = picture(32, 32, 8)
    values[24:] = 128
    stored = decoded(syntax, encoded(values, syntax, 8), form_of(values))
    assert np.abs(stored.values.astype(int) - values).max() <= 12


@pytest.mark.parametrize("syntax", sorted(ENCODERS))
def test_a_stream_larger_than_promised_is_not_decoded(syntax: str) -> None:
    values, stream, form = sample(syntax)
    if syntax in (DEFLATED, UNCOMPRESSED):
        # They carry no size; what is promised is taken, and no more.
        less = replace(form, rows=form.rows - 1)
        assert np.array_equal(decoded(syntax, stream, less).values, values[:-1])
        return
    for less in (replace(form, rows=63), replace(form, columns=47), replace(form, rows=1)):
        assert is_undecodable(syntax, stream, less)
    colours = replace(form, samples=3, photometric=Photometric.RGB)
    assert is_undecodable(syntax, stream, colours)


@pytest.mark.parametrize("syntax", [LOSSLESS_JPEG, JPEG_LS, JPEG_2000, HTJ2K, RLE, JPEG_XL])
def test_more_bits_than_allocated_are_not_decoded(syntax: str) -> None:
    _, stream, form = sample(syntax)
    assert is_undecodable(syntax, stream, replace(form, allocated=8, stored=8, high_bit=7))


def test_jpeg_2000_headers_that_lie_are_refused_before_the_library_sees_them() -> None:
    _, stream, form = sample(JPEG_2000)
    for place, value in (
        (24, (1).to_bytes(4, "big") * 2),  # A tile for every pixel, beyond the bound.
        (24, bytes(8)),
        (8, b"\xff" * 8),
        (40, b"\x40\x00"),
        (43, b"\x02"),
    ):
        assert is_undecodable(
            JPEG_2000,
            stream[:place] + value + stream[place + len(value) :],
            replace(form, rows=4096, columns=4096) if value == b"\0\0\0\1" * 2 else form,
        )


def test_jpeg_scans_are_bounded() -> None:
    values = picture(16, 16, 8)
    stream = progressive(values, 8)
    start = stream.rindex(b"\xff\xda")
    bomb = stream[:start] + stream[start:-2] * 100 + b"\xff\xd9"
    assert "scans" in refusal(PROGRESSIVE, bomb, form_of(values)).message


@pytest.mark.parametrize("offset", [0, 10, 63, 2**31, 2**32 - 1])
@pytest.mark.parametrize("segment", [0, 1])
def test_rle_offsets_that_lie_are_refused(segment: int, offset: int) -> None:
    values, stream, form = sample(RLE)
    place = 4 + 4 * segment
    lie = stream[:place] + offset.to_bytes(4, "little") + stream[place + 4 :]
    assert is_undecodable(RLE, lie, form)
    assert same(decoded(RLE, stream, form), values, 16)


def test_rle_segments_of_the_wrong_number_or_length_are_refused() -> None:
    values, stream, form = sample(RLE)
    for count in (0, 1, 3, 15, 16, 2**31):
        assert is_undecodable(RLE, count.to_bytes(4, "little") + stream[4:], form)
    assert is_undecodable(RLE, rle(values[:-1], 16), form)
    assert is_undecodable(RLE, rle(np.vstack([values, values]), 16), form)


def test_an_arithmetic_or_hierarchical_process_is_named() -> None:
    _, stream, form = sample(BASELINE)
    for process in (0xC5, 0xC9, 0xCB):
        other = stream.replace(b"\xff\xc0", bytes([0xFF, process]), 1)
        error = refusal(EXTENDED, other, form)
        assert error.reason is Reason.TRANSFER_SYNTAX_UNSUPPORTED
        assert f"JPEG Extended (Process 2 and 4) ({EXTENDED})" in error.message
        assert f"SOF{process - 0xC0}" in error.message


def test_floating_point_pixels_are_never_compressed() -> None:
    _, stream, form = sample(RLE)
    assert is_undecodable(RLE, stream, replace(form, floating=True))


@pytest.mark.parametrize("syntax", sorted(set(CODECS) - {DEFLATED, UNCOMPRESSED}))
def test_a_missing_library_is_named_with_the_remedy(
    syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = {"4.53": PROGRESSIVE, "4.92": JPEG_2000, "4.93": JPEG_2000, "4.202": HTJ2K}
    _, stream, form = sample(like.get(syntax.removeprefix(PREFIX), syntax))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    error = refusal(syntax, stream, form)
    assert error.reason is Reason.TRANSFER_SYNTAX_UNSUPPORTED
    assert f"({syntax}), its library is not installed" in error.message
    assert "pip install 'dafh[imaging]'" in error.remedy


def test_a_missing_library_is_named_for_a_jpeg_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = jpeg(picture(16, 16, 8), 8)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(InvalidInput, match="its library is not installed"):
        decode(stream, side=8)


def test_libraries_are_imported_when_a_frame_needs_one() -> None:
    script = "import sys, dafh.imaging.decode; sys.exit('imagecodecs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_jpeg_file_of_any_kind_is_read_for_research(
    bits: int, samples: int, lossless: bool
) -> None:
    values = picture(40, 40, bits, samples=samples)
    options = {"lossless": True, "predictor": 1} if lossless else {"level": 95}
    image = decode(jpeg(values, bits, **options), side=40)
    grey = values if samples == 1 else values @ np.array([0.299, 0.587, 0.114])
    assert np.abs(image.pixels[0] - grey * (255 / (2**bits - 1))).mean() <= 2
