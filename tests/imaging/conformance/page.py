"""The page docs/dicom-conformance.md: facts about files by name, no text or pixel of them."""

from __future__ import annotations

from collections import Counter

from pydicom.uid import UID

from dafh.imaging.codecs import RECENT

from .compared import TOLERANCE, Compared
from .explanations import DIFFERENT, FAILING, REFUSED
from .outcomes import Outcome

HEAD = """# What becomes of DICOM files from the field

Made by `python -m tests.imaging.conformance` from a collection of 212 real and damaged files:
public test data of pydicom, pylibjpeg, fo-dicom, dicomParser, the Image Biomarker Standardisation
Initiative and others, no part of this repository. Every file goes through `DecoderPool` with 5
seconds for a frame and the other limits as by default; it is the representative frame that is
decoded. `tests/imaging/test_real_files.py` holds this page to what the code does.
"""


def outcome_sections(outcomes: list[Outcome]) -> str:
    """Return what became of every file."""
    failing = [one for one in outcomes if one.has_pixels and not one.listed.marked_ok]
    refused = [one for one in outcomes if one.listed.marked_ok and one.refusal]
    return "\n\n".join(
        [
            "## Outcomes",
            _summary(outcomes),
            "## Files with pixels that pydicom with pylibjpeg does not decode",
            "“Here” is the image, or the reason of the refusal.",
            table(
                ("file", "transfer syntax", "here", "why"),
                *(
                    (
                        f"`{one.listed.file}`",
                        syntax_name(one.listed.transfer_syntax),
                        _here(one),
                        FAILING[one.listed.file],
                    )
                    for one in failing
                ),
            ),
            "## Files that pydicom with pylibjpeg decodes and that are refused here",
            table(
                ("file", "reason", "policy"),
                *(
                    (f"`{one.listed.file}`", _here(one), REFUSED[one.listed.file])
                    for one in refused
                ),
            ),
            "## By transfer syntax",
            "As the file's own label says; files without pixels are not counted.",
            _by_syntax(outcomes),
        ]
    )


def reference_sections(compared: list[Compared]) -> str:
    """Return how far the product is from each reference."""
    references = list(dict.fromkeys(one.reference for one in compared))
    rows = []
    for reference in references:
        shown = [one for one in compared if one.reference == reference and one.shown]
        agreeing = [one for one in shown if one.agrees]
        rows.append((reference, len(shown), len(agreeing), f"{len(agreeing) / len(shown):.1%}"))
    others = [one for one in compared if not one.agrees]
    return "\n\n".join(
        [
            "## Against independent programs",
            "Grey files of one frame, full resolution, the same window: the file's own first VOI "
            "LUT or window, else the one that DAFH chose. “DCMTK” is its dcm2pnm, “GDCM + "
            "formula” are the stored values of `gdcmconv --raw` (`dcmdjpeg`, `dcmdjpls` where GDCM "
            "has no codec) with the formulas of PS3.3 C.11 in numpy. Where Rescale Slope is below "
            "1, DCMTK, which rounds rescaled values to whole numbers, gets the window on the "
            f"stored values. A file agrees when every pixel is within {TOLERANCE} grey level; "
            "padding, which DAFH shows black, is left out.",
            table(("reference", "files shown", "agreeing", "share"), *rows),
            "The exceptions:",
            table(
                ("file", "reference", "pixels within 1", "99.9th percentile", "why"),
                *(
                    (
                        f"`{one.file}`",
                        one.reference,
                        f"{one.within:.1%}" if one.shown else "not shown",
                        f"{one.permille:g}" if one.shown else "",
                        DIFFERENT[one.file],
                    )
                    for one in others
                ),
            ),
        ]
    )


def page(outcomes: list[Outcome], compared: list[Compared]) -> str:
    """Return the whole page."""
    sections = (HEAD, outcome_sections(outcomes), reference_sections(compared))
    return "\n".join(section.strip() + "\n" for section in sections)


def syntax_name(uid: str) -> str:
    """Return a transfer syntax as people call it."""
    if not uid:
        return "not named"
    return f"{RECENT.get(uid) or UID(uid).name} ({uid})"


def table(*rows: tuple[object, ...]) -> str:
    """Return rows as a Markdown table; the first is its head."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def _here(one: Outcome) -> str:
    if one.image is None:
        return f"{one.reason}"
    metadata = one.image.metadata
    return f"image, frame {one.image.frame} of {metadata.frames}"


def _summary(outcomes: list[Outcome]) -> str:
    counts = Counter(one.reason for one in outcomes)
    images = counts.pop(None)
    reasons = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    rows = [("image", images, ""), *((reason, count, "") for reason, count in reasons)]
    pixels = sum(one.has_pixels for one in outcomes)
    return (
        f"{len(outcomes)} files, {pixels} with pixel data; none crashes a decoder, takes 5 seconds "
        "or leaves a process behind.\n\n"
        + table(("outcome", "files"), *((row[0], row[1]) for row in rows))
    )


def _by_syntax(outcomes: list[Outcome]) -> str:
    files: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for one in outcomes:
        if one.has_pixels:
            files[one.listed.transfer_syntax] += 1
            images[one.listed.transfer_syntax] += one.image is not None
    rows = [
        (syntax_name(uid), files[uid], images[uid], files[uid] - images[uid])
        for uid in sorted(files, key=lambda uid: [int(part) for part in uid.split(".") if part])
    ]
    return table(("transfer syntax", "files", "images", "refused"), *rows)
