"""Marker segments of a JPEG stream (ITU-T T.81 Annex B): what it promises before it is decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dafh.imaging.refusal import undecodable

START_OF_IMAGE = b"\xff\xd8"
END_OF_IMAGE = b"\xff\xd9"
START_OF_SCAN = 0xDA
#: Frame headers SOF0 to SOF15 without DHT, JPG and DAC, and the one of JPEG-LS.
FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC2, 0xC3, 0xF7
#: Segments before the first scan; each costs some time. A profile fills up to 255, pictures in many
#: parts about as many again.
MOST_SEGMENTS = 4096
#: What a marker begins with: any number of bytes, of which the last is its own (T.81 B.1.1.2).
FILL = re.compile(b"\xff+")
#: Markers without a length: TEM, RST0 to RST7, SOI.
BARE = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True, slots=True)
class JpegStream:
    """The header of a JPEG stream."""

    #: Second byte of the frame header's marker: C0 baseline, C1 extended, C2 progressive, ….
    process: int
    precision: int
    rows: int
    columns: int
    components: tuple[int, ...]
    #: Whether JFIF says that three components are YCbCr.
    jfif: bool
    #: Transform flag of Adobe's APP14: 0 none, 1 YCbCr; `None` where absent.
    adobe_transform: int | None
    #: Position behind the header of the first scan.
    scan: int

    @property
    def is_rgb(self) -> bool | None:
        """Whether three components are RGB by the stream's own word; `None` where it is silent.

        A lossless stream is: its values are coded as they are (ITU-T T.81 H), and JFIF knows none.
        """
        if self.process == LOSSLESS:
            return None
        if self.components in (tuple(b"RGB"), tuple(b"rgb")):
            return True
        if self.adobe_transform is not None:
            return self.adobe_transform == 0
        return False if self.jfif else None


def read_jpeg(stream: bytes) -> JpegStream:
    """Read the segments before the first scan.

    Raises
    ------
    InvalidInput
        PIXELS_UNDECODABLE: it is no JPEG stream, ends before the first scan, or has too many
        segments.
    """
    if not stream.startswith(START_OF_IMAGE):
        raise undecodable("there is no JPEG stream")
    frame: tuple[int, bytes] | None = None
    jfif, adobe, position = False, None, 2
    for _ in range(MOST_SEGMENTS):
        marker, segment, position = _segment(stream, position)
        body = segment[4:]
        if marker in FRAME_HEADERS:
            if frame is not None:
                # Decoders differ in which one they believe.
                raise undecodable("the JPEG stream has two frame headers")
            frame = (marker, body)
        elif marker == 0xE0 and body.startswith(b"JFIF\0"):
            jfif = True
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        if marker == START_OF_SCAN:
            break
    else:
        raise undecodable(f"the JPEG stream has more than {MOST_SEGMENTS} segments")
    if frame is None or len(frame[1]) < 6 or len(frame[1]) < 6 + 3 * frame[1][5]:
        raise undecodable("the JPEG stream has no frame header")
    body = frame[1]
    return JpegStream(
        process=frame[0],
        precision=body[0],
        rows=int.from_bytes(body[1:3], "big"),
        columns=int.from_bytes(body[3:5], "big"),
        components=tuple(body[6 + 3 * index] for index in range(body[5])),
        jfif=jfif,
        adobe_transform=adobe,
        scan=position,
    )


def _segment(stream: bytes, position: int) -> tuple[int, bytes, int]:
    """Return marker, whole segment and the position behind it."""
    fill = FILL.match(stream, position)
    if fill is None:
        raise undecodable("the JPEG stream breaks off or is damaged before its first scan")
    position = fill.end() - 1
    if len(stream) - position < 4:
        raise undecodable("the JPEG stream ends before its first scan")
    marker = stream[position + 1]
    if marker in BARE:
        return marker, stream[position : position + 2], position + 2
    stop = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    if stop > len(stream) or stop < position + 4:
        raise undecodable("the JPEG stream ends before its first scan")
    return marker, stream[position:stop], stop
