"""Figures that several pages tell are the same, and those of files that benchmarks keep."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from dafh.codes import BITS
from dafh.settings import CHECKOUT

KEPT = CHECKOUT / "docs" / "performance"
LENGTHS = [str(bits) for bits in BITS]
VARIANTS = json.loads((KEPT / "variants.json").read_text())["variants"]
RIVALS = json.loads((KEPT / "rivals.json").read_text())["candidates"]
#: What the same codes may be apart in MAP@10 when they come from Triton for pictures in DICOM.
SERVED = 0.005


def page(name: str) -> str:
    """Return a page, its lines joined: a sentence may go over their ends."""
    return " ".join((CHECKOUT / name).read_text().split())


def of_model_card() -> list[float]:
    """Return MAP@10 over all classes by code length, as the model card tells it."""
    text = (CHECKOUT / "docs" / "model-card.md").read_text()
    (row,) = re.findall(r"^\| macro \|(.+)\|$", text, re.MULTILINE)
    return [float(cell) for cell in row.split("|")][: len(LENGTHS)]


def test_readme_tells_all_classes_as_the_model_card_does() -> None:
    first, second, third, last = (f"{value:.2f}" for value in of_model_card())
    assert (
        "On 21 classes of CT, MR, PET, ultrasound and histology the shipped model reaches a MAP@10 "
        f"of {first}, {second}, {third} and {last} at 16, 32, 48 and 64 bits"
    ) in page("README.md")


@pytest.mark.parametrize("bits", ["48", "64"])
def test_the_page_on_speed_measures_the_same_quality(bits: str) -> None:
    served = RIVALS[f"DAFH, {bits} bits"]["map_at_10"]
    assert served == pytest.approx(of_model_card()[LENGTHS.index(bits)], abs=SERVED)
    assert f"| DAFH, {bits} bits | {served:.3f} |" in page("docs/performance.md")


def test_what_hash_heads_are_worth_is_told_as_it_was_measured() -> None:
    plain = json.loads((KEPT / "variants.json").read_text())["feature_codes"]
    (shipped,) = [one for one in VARIANTS if one["name"] == "fp32 128"]
    own, cosine = shipped["macro_bar"], shipped["float_macro_bar"]
    itq, lsh = plain["itq"], plain["lsh"]
    assert (
        f"At 48 bits, codes lose {cosine - own['48']:.3f} to the float features they are made of. "
        f"Plain codes of those features, learnt on the train split, are {itq['behind']:.3f} behind "
        f"by ITQ ({itq['interval'][0]:.3f} to +{itq['interval'][1]:.3f}, a tie) and "
        f"{lsh['behind']:.3f} by LSH ({lsh['interval'][0]:.3f} to {lsh['interval'][1]:.3f}), as "
        f"means over the lengths: hash heads are worth most at 16 bits ({own['16']:.3f}, ITQ "
        f"{itq['macro_bar']['16']:.3f}, LSH {lsh['macro_bar']['16']:.3f}), and nothing at 48 and "
        f"64 (ITQ {itq['macro_bar']['48']:.3f} and {itq['macro_bar']['64']:.3f})."
    ) in page("docs/evaluation.md")


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda one: one["name"])
def test_image_sizes_are_told_as_they_were_measured(variant: dict[str, Any]) -> None:
    (shipped,) = [one for one in VARIANTS if one["name"] == "fp32 128"]
    side = f"{variant['side']}²"
    if variant is shipped:
        side = f"**{side}**"
    elif variant["name"].startswith("fp16"):
        side += ", fp16"
    time = f"{variant['milliseconds'] / shipped['milliseconds']:.2f}"
    cells = [side, "1" if variant is shipped else time, f"{variant['mebibytes']:.1f}"]
    cells += [f"{variant['macro_bar'][bits]:.3f}" for bits in LENGTHS]
    cosine = variant["float_macro_bar"]
    cells.append("" if cosine is None else f"{cosine:.3f}")
    assert "| " + " | ".join(cells).rstrip() + " |" in page("docs/evaluation.md")


def test_what_a_smaller_image_costs_is_told_at_every_length() -> None:
    of = {one["name"]: one for one in VARIANTS}
    small, shipped = of["fp32 96"]["macro_bar"], of["fp32 128"]["macro_bar"]
    lost = [f"{shipped[bits] - small[bits]:.2f}" for bits in LENGTHS[:3]]
    text = page("docs/evaluation.md")
    assert f"At 16, 32 and 48 bits 96² loses {lost[0]}, {lost[1]} and {lost[2]}" in text
    assert f"no worse ({small['64']:.3f} against {shipped['64']:.3f})" in text
