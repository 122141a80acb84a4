"""Figures that pages tell are those of the evaluation that is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dafh.codes import BITS
from dafh.settings import CHECKOUT
from guide.evaluation import CARD, KEPT, SHIPPED, class_table, slim, with_table

from .test_figures import page

#: Model version -> figures.
EVALUATIONS: dict[str, Any] = json.loads(KEPT.read_text())
FIRST, SECOND = EVALUATIONS["1"], EVALUATIONS[SHIPPED]
LENGTHS = [str(bits) for bits in BITS]
#: Strangers that are pydicom's own test files.
PYDICOM = "pydicom's files"


def _between(measured: Any) -> str:  # noqa: ANN401 - JSON
    low, high = measured["map_at_10"]["macro_bar_interval"]
    return f"{low:.3f} to {high:.3f}"


def _of_modality(name: str) -> Callable[[Any], str]:
    return lambda measured: f"{measured['per_modality'][name]['macro']:.3f}"


#: Row of the model card -> what it tells of a ranking.
ROWS: dict[str, Callable[[Any], str]] = {
    "macro": lambda measured: f"{measured['map_at_10']['macro']:.3f}",
    "without lung normal": lambda measured: f"{measured['map_at_10']['macro_bar']:.3f}",
    "95 % interval of that": _between,
    "wide, without lung normal": lambda measured: f"{measured['wide']['macro_bar']:.3f}",
    "CT": _of_modality("CT"),
    "histology": _of_modality("HP"),
    "MR": _of_modality("MR"),
    "PET": _of_modality("PT"),
    "ultrasound": _of_modality("US"),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_model_card_tells_map_as_it_was_measured(name: str) -> None:
    cells = [ROWS[name](SECOND[ranking]) for ranking in (*LENGTHS, "pixels")]
    assert f"| {name} | {' | '.join(cells)} |" in page("docs/model-card.md")


def sentences() -> list[str]:
    """Return what else the model card tells of the evaluation."""
    bar = [f"{FIRST[bits]['map_at_10']['macro_bar']:.3f}" for bits in LENGTHS]
    of_class = SECOND["64"]["map_at_10"]["per_class"]
    breast = [
        f"{SECOND[ranking]['hard_sets']['breast']['macro']:.2f}" for ranking in ("pixels", "64")
    ]
    across = {
        ranking: SECOND[ranking]["cancer_type_across_modalities"]["macro"]
        for ranking in (*LENGTHS, "pixels")
    }
    floor = across.pop("pixels")
    classified = SECOND["classifier"]
    trust = {
        name: " / ".join(f"{SECOND['probability'][bits][name]:.{digits}f}" for bits in LENGTHS)
        for name, digits in (("expected_calibration_error", 3), ("brier_skill", 2), ("auroc", 2))
    }
    strange = {name: f"{100 * one['detected']:.0f} %" for name, one in SECOND["strangers"].items()}
    assert strange["white noise"] == "100 %"
    wide_errors = " / ".join(
        f"{SECOND['probability_wide'][bits]['expected_calibration_error']:.3f}" for bits in LENGTHS
    )
    alarms = dict(SECOND["false_alarms_wide"])
    for name in ("ct_softtissue_sarcoma", "mr_softtissue_sarcoma", "mr_brain_glioma"):
        assert f"{100 * alarms.pop(name):.0f}" == "15"
    accuracy, wide = (classified[name]["accuracy"] for name in ("by_class", "by_class_wide"))
    lowest, highest = min(across.values()), max(across.values())
    return [
        f"Version 1 had {', '.join(bar[:3])} and {bar[3]} without lung normal.",
        f"names the class of {100 * accuracy:.0f} % of the queries (macro F1 "
        f"{classified['by_class']['macro_f1']:.2f}, AUROC {classified['by_class']['auroc']:.2f}) "
        f"and of {100 * wide:.0f} % of the database's images.",
        f"kidney tumour {of_class['ct_kidney_tumor']:.2f} (one query group), breast ultrasound "
        f"{of_class['us_breast_normal']:.2f} (normal) to {of_class['us_breast_benign']:.2f} "
        f"(benign), lung normal {of_class['ct_lung_normal']:.2f} (five queries).",
        f"plain pixels do nearly as well ({breast[0]} against {breast[1]}).",
        f"hardly found: {lowest:.2f} to {highest:.2f}, pixels {floor:.2f}.",
        f"calibration error {trust['expected_calibration_error']}, Brier skill "
        f"{trust['brier_skill']}, AUROC {trust['auroc']}.",
        f"On the five times more queries of *wide* the errors are {wide_errors}",
        f"15 % of the soft-tissue sarcomas (in CT and in MR) and 15 % of the gliomas lie beyond, "
        f"of other classes at most {100 * max(alarms.values()):.0f} %",
        f"lie beyond, and {100 * SECOND['false_alarms']:.0f} % of the queries do.",
        f"notices all white noise, {strange['smooth noise']} of smooth noise, "
        f"{strange['phantoms']} of phantoms (it saw others of these three kinds in training) and "
        f"{strange[PYDICOM]} of the images",
    ]


@pytest.mark.parametrize("sentence", sentences())
def test_the_model_card_says_what_was_measured(sentence: str) -> None:
    assert sentence in page("docs/model-card.md")


def test_the_model_card_tells_what_an_image_costs() -> None:
    kept = json.loads((CHECKOUT / "docs" / "performance" / "encoder.json").read_text())
    (shipped,) = [one for one in kept["models"] if one["model"] == SHIPPED]
    assert abs(1 - shipped["without_map"] / shipped["milliseconds"]) < 0.05
    assert (
        f"{shipped['mebibytes']:.1f} MiB of ONNX, 9.8 MiB in fp16; {shipped['milliseconds']:.1f} "
        "ms an image on one core, no measurable part of it for the map"
    ) in page("docs/model-card.md")


def test_the_model_card_tells_every_class_as_it_was_measured() -> None:
    table = class_table(EVALUATIONS[SHIPPED])
    assert with_table(CARD.read_text(), table) == CARD.read_text()
    assert table.count("\n") == 2 + 21
    queries = SECOND["queries_by_class"]
    assert queries.keys() == SECOND["64"]["map_at_10"]["per_class"].keys()
    assert sum(queries.values()) == SECOND["queries"]
    assert f"| ct_kidney_tumor \\* | {queries['ct_kidney_tumor']} | " in table


def test_version_1_is_told_as_it_was_measured() -> None:
    text = page("docs/model-v1.md")
    assert f"| {' | '.join(ROWS['macro'](FIRST[bits]) for bits in LENGTHS)} |" in text


def test_what_is_kept_has_no_more_than_pages_need() -> None:
    assert slim({"a": [0.12345678, 1], "neighbours": {}}) == {"a": [0.123457, 1]}
    assert slim(EVALUATIONS) == EVALUATIONS


def test_ways_to_tell_strangers_are_told_as_they_were_measured() -> None:
    """A page that the benchmark wrote nothing of would pass for one without the table."""
    text = page("docs/evaluation.md")
    kept = json.loads((CHECKOUT / "docs" / "performance" / "strangeness.json").read_text())
    assert len(kept) > 1
    for name, folds in kept.items():
        auroc, found, phantoms = (
            sum(one[key] for one in folds.values()) / len(folds)
            for key in ("auroc", "found", "phantoms")
        )
        histology, ct = folds["without-histology"]["auroc"], folds["without-ct"]
        cells = f"{auroc:.3f} | {found:.0%} | {ct['auroc']:.3f}, {ct['found']:.0%} | "
        cells += f"{histology:.3f} | {phantoms:.0%}"
        assert f"| {name} | {cells} |" in text
