"""What independent programs make of a file, for comparison: DCMTK and GDCM.

DCMTK renders the file itself. GDCM only undoes the transfer syntax; the formulas of
the standard are applied here in numpy, with pydicom reading the elements. Neither shares code with
the product.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

Grey = NDArray[np.uint8]

#: Seconds that one call of a program may take.
SECONDS = 60
#: Forms of ``dcm2pnm``: native, RLE and JPEG; JPEG-LS.
RENDERERS = ("dcmj2pnm", "dcml2pnm")
#: Each undoes what it has codecs for.
DECOMPRESSORS = (("gdcmconv", "--raw"), ("dcmdjpeg",), ("dcmdjpls",))
TOOLS = (*RENDERERS, *(command[0] for command in DECOMPRESSORS))


def missing_tools() -> list[str]:
    """Return the programs that are not installed (Debian: dcmtk, libgdcm-tools)."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


@dataclass(frozen=True, slots=True)
class Voi:
    """How values become grey levels: the file's first VOI LUT, or a window on rescaled values."""

    center: float = 0.0
    width: float = 0.0
    function: str = "LINEAR"
    lut: bool = False

    def exact(self) -> Voi:
        """Return a LINEAR window as LINEAR_EXACT, which is the same line (PS3.3 C.11.2.1.3.2)."""
        if self.function != "LINEAR":
            return self
        return Voi(self.center - 0.5, self.width - 1, "LINEAR_EXACT")

    def before(self, slope: float, intercept: float) -> Voi:
        """Return the window on what ``value * slope + intercept`` was made of."""
        one = self.exact()
        return Voi((one.center - intercept) / slope, one.width / slope, one.function)


#: How `Image.applied` words the window that the product chose.
CHOSEN = re.compile(r"default window (?P<center>\S+)/(?P<width>\S+)(?: (?P<function>\S+))?")


def voi_of(path: Path, applied: tuple[str, ...]) -> Voi:
    """Return what the file asks for; the product's choice where it asks for nothing.

    Parameters
    ----------
    path
        A DICOM file.
    applied
        What the product did, in its own words.
    """
    data_set = _header(path)
    chosen = next(filter(None, map(CHOSEN.fullmatch, applied)), None)
    if chosen:
        voi = Voi(float(chosen["center"]), float(chosen["width"]), chosen["function"] or "LINEAR")
        return voi.before(_uptake(data_set), 0.0) if "SUV" in applied else voi
    if "VOI LUT" in applied:
        return Voi(lut=True)
    function = str(_nearest(data_set, "VOILUTFunction") or "LINEAR")
    center, width = (_nearest(data_set, name) for name in ("WindowCenter", "WindowWidth"))
    return Voi(_first(center), _first(width), function)


def _header(path: Path) -> Dataset:
    """Return what pydicom reads; nothing where it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dcmread(path, force=True, stop_before_pixels=True)
        except (NotImplementedError, OSError):
            return Dataset()


def _uptake(data_set: Dataset) -> float:
    """Return what turns activity into the standardised uptake value by body weight (g/ml).

    Dose and weight: PS3.3 C.8.9.2, C.8.9.1.1.3; the dose decays until the series begins.
    """
    if data_set.Units != "BQML":
        return 1.0
    drug = data_set.RadiopharmaceuticalInformationSequence[0]
    began, given = (
        3600 * int(text[:2]) + 60 * int(text[2:4]) + float(text[4:])
        for text in (data_set.SeriesTime, drug.RadiopharmaceuticalStartTime)
    )
    left = float(drug.RadionuclideTotalDose) * 2 ** (
        -(began - given) / float(drug.RadionuclideHalfLife)
    )
    return 1000 * float(data_set.PatientWeight) / left


def rendered_by_dcmtk(path: Path, voi: Voi, work: Path) -> Grey | None:
    """Return what DCMTK shows, `None` where it cannot.

    DCMTK rounds rescaled values to whole numbers: where a step is less, it gets the window on the
    stored values.
    """
    options = ["--write-raw-pnm", "--no-overlays", "--frame", "1"]
    if voi.lut:
        options += ["--use-voi-lut", "1"]
    else:
        data_set = _header(path)
        slope, intercept = (data_set.get(name) for name in ("RescaleSlope", "RescaleIntercept"))
        if abs(_first(slope, 1.0)) < 1:
            voi = voi.before(_first(slope), _first(intercept))
            options.append("--no-modality")
        # DCMTK has no LINEAR_EXACT.
        exact = voi.function == "LINEAR_EXACT"
        center, width = voi.center + 0.5 * exact, voi.width + exact
        kind = "sigmoid" if voi.function == "SIGMOID" else "linear"
        options += ["--set-window", repr(center), repr(width), f"--{kind}-function"]
    for source in (path, *_decompressed(path, work)):
        for renderer in RENDERERS:
            made = work / "dcmtk.pgm"
            if _runs(renderer, *options, str(source), str(made)):
                return _pgm(made.read_bytes())
    return None


def rendered_by_formula(path: Path, voi: Voi, work: Path) -> tuple[Grey, NDArray[np.bool_]] | None:
    """Return what the formulas make of GDCM's values, and where values are padding.

    `None` where no program undoes the transfer syntax.
    """
    for source in (*_decompressed(path, work), path):
        with warnings.catch_warnings():
            # Odd elements are pydicom's to warn of; only the pixels are of interest.
            warnings.simplefilter("ignore")
            data_set = dcmread(source, force=True)
            if getattr(data_set.file_meta, "TransferSyntaxUID", None) is None:
                continue
            if data_set.file_meta.TransferSyntaxUID.is_compressed:
                continue
            stored = data_set.pixel_array
            return _shown(stored, data_set, voi), _padding(stored, data_set)
    return None


def _shown(stored: NDArray[np.generic], data_set: Dataset, voi: Voi) -> Grey:
    values = _modality(stored.astype(np.float64), data_set)
    if voi.lut:
        share = _looked_up(values, data_set.VOILUTSequence[0])
        bits = int(data_set.VOILUTSequence[0].LUTDescriptor[2])
        share /= max(2**bits - 1, float(np.max(_entries(data_set.VOILUTSequence[0]))))
    elif voi.function == "SIGMOID":
        share = 1 / (1 + np.exp(-4 * (values - voi.center) / voi.width))
    else:
        step = 1.0 if voi.function == "LINEAR" else 0.0
        low = voi.center - step / 2 - (voi.width - step) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (values - low) / (voi.width - step)
        share = np.where(values <= low, 0.0, share)
    share = np.clip(share, 0.0, 1.0)
    if data_set.PhotometricInterpretation == "MONOCHROME1":
        share = 1 - share
    return np.rint(share * 255).astype(np.uint8)


def _modality(values: NDArray[np.float64], data_set: Dataset) -> NDArray[np.float64]:
    if data_set.get("ModalityLUTSequence"):
        return _looked_up(values, data_set.ModalityLUTSequence[0])
    slope, intercept = (_nearest(data_set, name) for name in ("RescaleSlope", "RescaleIntercept"))
    return values * _first(slope, 1.0) + _first(intercept, 0.0)


def _entries(item: Dataset) -> NDArray[np.float64]:
    data = item.LUTData
    words = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    return words.astype(np.float64)


def _looked_up(values: NDArray[np.float64], item: Dataset) -> NDArray[np.float64]:
    entries = _entries(item)
    places = np.clip(np.rint(values) - int(item.LUTDescriptor[1]), 0, len(entries) - 1)
    found: NDArray[np.float64] = entries[places.astype(np.int64)]
    return found


def _padding(stored: NDArray[np.generic], data_set: Dataset) -> NDArray[np.bool_]:
    values = stored.astype(np.float64)
    unreal: NDArray[np.bool_] = ~np.isfinite(values)
    value = data_set.get("PixelPaddingValue")
    if value is None:
        return unreal
    limit = data_set.get("PixelPaddingRangeLimit", value)
    low, high = sorted((float(value), float(limit)))
    return unreal | ((values >= low) & (values <= high))


def _nearest(data_set: Dataset, keyword: str) -> object:
    """Return an element of the first frame's functional groups, the shared ones, or the root."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in data_set.get(groups, [])[:1]:
            for macro in group:
                for item in macro.value if macro.VR == "SQ" else ():
                    if item.get(keyword) is not None:
                        return item.get(keyword)
    return data_set.get(keyword)


def _first(value: object, absent: float = 0.0) -> float:
    """Return the first of one or several numbers."""
    if value is None or value == "":
        return absent
    return float(value[0] if isinstance(value, list) or hasattr(value, "append") else value)  # type: ignore[arg-type, index]  # pydicom's values are of many kinds


def _decompressed(path: Path, work: Path) -> Iterator[Path]:
    for command in DECOMPRESSORS:
        made = work / f"{command[0]}.dcm"
        made.unlink(missing_ok=True)
        if _runs(*command, str(path), str(made)) and made.exists():
            yield made


def _runs(*command: str) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _pgm(data: bytes) -> Grey | None:
    """Read a raw 8-bit PGM; `None` for a picture in colour."""
    header = re.match(rb"P5\s(?:#[^\n]*\s)*(\d+)\s+(\d+)\s+255\s", data)
    if header is None:
        return None
    columns, rows = int(header[1]), int(header[2])
    return np.frombuffer(data, np.uint8, rows * columns, header.end()).reshape(rows, columns)
