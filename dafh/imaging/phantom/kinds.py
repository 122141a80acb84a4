"""The kinds of series that phantoms come in: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundImageStorage,
)

from dafh.imaging.phantom import ct, mg, mr, pt, storage, us
from dafh.imaging.phantom.canvas import Canvas, Geometry

Draw = Callable[[Canvas, float], None]
Store = Callable[[NDArray[np.float64], int, tuple[int, int] | None], storage.Stored]


@dataclass(frozen=True, slots=True)
class Kind:
    """What one series shows, and how."""

    modality: str
    #: Body Part Examined, PS3.16 Annex L.
    body_part: str
    label: str
    sop_class: str
    draw: Draw
    store: Store
    #: Rasters that series take in turn.
    geometries: tuple[Geometry, ...]
    #: Windows (center, width) that series take in turn; `None` leaves it out of the file.
    windows: tuple[tuple[int, int] | None, ...] = (None,)
    #: Greatest number of slices of a series.
    slices: int = 3
    background: float = 0.0


_CT_RASTERS = (
    Geometry(256, 256, 1.6, 1.6),
    Geometry(320, 320, 1.2, 1.2),
    Geometry(192, 256, 1.7, 1.7),
    Geometry(512, 512, 0.8, 0.8),
    Geometry(224, 224, 1.8, 1.8),
)
_MR_RASTERS = (
    Geometry(256, 208, 0.95, 0.95),
    Geometry(192, 192, 1.2, 1.2),
    # Fewer rows than columns over the same length: pixels that are not square.
    Geometry(160, 256, 1.5, 0.9375),
    Geometry(288, 288, 0.8, 0.8),
)
_KNEE_RASTERS = (
    Geometry(256, 192, 0.7, 0.7),
    Geometry(320, 256, 0.55, 0.55),
    Geometry(160, 160, 1.1, 1.1),
)
_US_RASTERS = (Geometry(240, 320, 0.5, 0.5), Geometry(300, 400, 0.4, 0.4))
_MG_RASTERS = (Geometry(480, 360, 0.5, 0.5), Geometry(400, 256, 0.6, 0.6))

KINDS: tuple[Kind, ...] = (
    Kind("CT", "HEAD", "phantom ct head", CTImageStorage, ct.head, storage.store_ct,
         _CT_RASTERS, ((40, 80), None, (35, 120)), background=ct.AIR),
    Kind("MR", "BRAIN", "phantom mr brain t1", MRImageStorage, partial(mr.brain, contrast=mr.T1),
         storage.store_mr, _MR_RASTERS, ((450, 900), None)),
    Kind("US", "ABDOMEN", "phantom us abdomen", UltrasoundImageStorage, us.abdomen,
         storage.store_us, _US_RASTERS, slices=2),
    Kind("CT", "CHEST", "phantom ct chest", CTImageStorage, ct.chest, storage.store_ct,
         _CT_RASTERS, ((40, 400), (-600, 1500), None), background=ct.AIR),
    Kind("MG", "BREAST", "phantom mg breast", DigitalMammographyXRayImageStorageForPresentation,
         mg.breast, storage.store_mg, _MG_RASTERS, slices=2),
    Kind("PT", "WHOLEBODY", "phantom pt whole body", PositronEmissionTomographyImageStorage,
         pt.whole_body, storage.store_pt, (Geometry(256, 144, 4, 4), Geometry(192, 96, 5, 5)),
         ((5000, 10000), (7000, 14000)), slices=2),
    Kind("MR", "KNEE", "phantom mr knee", MRImageStorage, partial(mr.knee, contrast=mr.T1),
         storage.store_mr, _KNEE_RASTERS, (None, (420, 1000))),
    Kind("CT", "ABDOMEN", "phantom ct abdomen", CTImageStorage, ct.abdomen, storage.store_ct,
         _CT_RASTERS, ((40, 400), (60, 350), None), background=ct.AIR),
    Kind("US", "BREAST", "phantom us breast", UltrasoundImageStorage, us.breast,
         storage.store_us, _US_RASTERS, slices=2),
    Kind("MR", "BRAIN", "phantom mr brain t2", MRImageStorage, partial(mr.brain, contrast=mr.T2),
         storage.store_mr, _MR_RASTERS, (None, (500, 1000))),
    Kind("CT", "PELVIS", "phantom ct pelvis", CTImageStorage, ct.pelvis, storage.store_ct,
         _CT_RASTERS, ((40, 400), (300, 1500), None), background=ct.AIR),
    Kind("PT", "CHEST", "phantom pt chest", PositronEmissionTomographyImageStorage, pt.chest,
         storage.store_pt, (Geometry(128, 128, 4, 4), Geometry(96, 128, 4, 4)),
         ((5000, 10000), (8000, 16000))),
)  # fmt: skip
