"""The report of an evaluation: every figure of the protocol, as JSON and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from dafh.encoding.port import Encoder, ModelVersion
from dafh.evaluation.classifier import Classified, classify_cancer_types, classify_classes
from dafh.evaluation.encoded import Rows, listed
from dafh.evaluation.protocol import (
    Figures,
    Measured,
    by_codes,
    by_pixels,
    few_groups,
    measure,
)
from dafh.evaluation.strangers import false_alarms, false_alarms_by_class, judge_strangers
from dafh.evaluation.trust import Probabilities, Strangeness, judge_probabilities


class Classifier(BaseModel):
    """The auxiliary classifier on the queries, and on the database ("wide": five times more)."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    by_class: Classified | None
    by_cancer_type: Classified | None
    by_class_wide: Classified | None
    by_cancer_type_wide: Classified | None


class Report(BaseModel):
    """Everything that `dafh evaluate` found."""

    model_config = ConfigDict(frozen=True)

    model: ModelVersion
    database: int
    queries: int
    #: Class -> its queries.
    queries_by_class: dict[str, int]
    #: Reason -> images that could not be read, or that imaging refused.
    refused: dict[str, int]
    #: Classes with so few query groups that their figure says little.
    few_groups: list[str]
    #: bits -> figures.
    codes: dict[int, Measured]
    #: The floor: correlation of thumbnails.
    pixels: Measured
    classifier: Classifier
    #: bits -> how true the probabilities of the hits are, where the model states any.
    probability: dict[int, Probabilities]
    #: The same, where the database's images ask those of other groups.
    probability_wide: dict[int, Probabilities]
    #: Share of the queries that the model calls strange, though it knows their kind.
    false_alarms: float | None
    #: Class -> the same share of the database's images.
    false_alarms_wide: dict[str, float]
    #: Kind of images that belong to no patient -> whether the model notices.
    strangers: dict[str, Strangeness]

    def as_json(self) -> dict[str, Any]:
        """Return the report with one key per code length, and the rest beside them."""
        figures = self.model_dump(mode="json", exclude_none=True)
        model = figures.pop("model")
        return {
            **{str(bits): measured for bits, measured in figures.pop("codes").items()},
            "model": {name: model[name] for name in ("version", "hash", "side")},
            **figures,
        }


def report(splits: dict[str, Rows], encoder: Encoder, bits: Sequence[int]) -> Report:
    """Measure the splits "database" and "query", encoded by `encoder`, at some code lengths."""
    model = encoder.model
    database, query = splits["database"], splits["query"]
    known = [*database.entries, *query.entries]
    return Report(
        model=model,
        database=len(database.entries),
        queries=len(query.entries),
        queries_by_class=dict(sorted(Counter(query.classes).items())),
        refused=dict(database.refused + query.refused),
        few_groups=few_groups(query),
        codes={
            length: measure(database, query, by_codes(length), by_codes(length, ties=False))
            for length in bits
        },
        pixels=measure(database, query, by_pixels),
        classifier=Classifier(
            by_class=classify_classes(query, model.classes),
            by_cancer_type=classify_cancer_types(query, model.classes, known),
            by_class_wide=classify_classes(database, model.classes),
            by_cancer_type_wide=classify_cancer_types(database, model.classes, known),
        ),
        probability=_probabilities_of(query, database, bits, model),
        probability_wide=_probabilities_of(database, database, bits, model),
        false_alarms=false_alarms(query, model),
        false_alarms_wide=false_alarms_by_class(database, model),
        strangers=judge_strangers(query, encoder),
    )


def _probabilities_of(
    query: Rows, database: Rows, bits: Sequence[int], model: ModelVersion
) -> dict[int, Probabilities]:
    return {
        length: judged
        for length in bits
        if (judged := judge_probabilities(database, query, length, model.calibration))
    }


def counts(result: Report) -> str:
    """Return how many asked and could answer, and how many are not among them, as a sentence."""
    refused = sum(result.refused.values())
    return (
        f"{result.queries} queries asked {result.database} database images; "
        f"{refused} images were refused{listed(result.refused)}."
    )


def tables(result: Report) -> Iterator[Table]:
    """Yield what a person wants to see first."""
    columns = {f"{bits} bits": measured for bits, measured in result.codes.items()}
    columns["pixels"] = result.pixels
    yield _by_name("MAP@10 by class", columns, result.few_groups)
    yield _summary(columns)
    yield _classifier(result.classifier)
    if result.probability:
        yield _probabilities(result)
    if result.strangers:
        yield _strangers(result.strangers)


def _by_name(title: str, columns: dict[str, Measured], marked: list[str]) -> Table:
    table = Table("class", *columns, title=title, caption="* fewer than 5 query groups")
    for name in sorted(next(iter(columns.values())).map_at_10.per_class):
        values = (measured.map_at_10.per_class[name] for measured in columns.values())
        table.add_row(f"{name} *" if name in marked else name, *(f"{v:.3f}" for v in values))
    return table


def _summary(columns: dict[str, Measured]) -> Table:
    table = Table("MAP@10, macro", *columns, title="Summary")
    rows: dict[str, list[Figures | None]] = {
        "query → database": [one.map_at_10 for one in columns.values()],
        "Hamming only": [one.hamming_only for one in columns.values()],
        "wide": [one.wide for one in columns.values()],
        "same cancer type": [one.cancer_type for one in columns.values()],
        "same cancer type, other modality": [
            one.cancer_type_across_modalities for one in columns.values()
        ],
    }
    for kind in ("per_modality", "hard_sets"):
        for name in getattr(next(iter(columns.values())), kind):
            label = f"{name} queries" if kind == "per_modality" else f"{name} alone"
            rows[label] = [getattr(one, kind)[name] for one in columns.values()]
    for rank in next(iter(columns.values())).precision:
        rows[f"P@{rank}"] = [one.precision[rank] for one in columns.values()]
    first = rows.pop("query → database")
    table.add_row("query → database", *(_shown(one) for one in first))
    table.add_row("  without lung normal", *(_shown(one, bar=True) for one in first))
    for label, figures in rows.items():
        table.add_row(label, *(_shown(one) for one in figures))
    return table


def _shown(figures: Figures | None, *, bar: bool = False) -> str:
    value = None if figures is None else figures.macro_bar if bar else figures.macro
    if figures is None or value is None:
        return ""
    between = figures.macro_bar_interval if bar else figures.macro_interval
    return f"{value:.3f}" + (f" ({between[0]:.3f} to {between[1]:.3f})" if between else "")


def _classifier(classifier: Classifier) -> Table:
    table = Table(
        "classifier", "accuracy", "macro F1", "AUROC", "rows", "left out", title="Classifier"
    )
    for name in Classifier.model_fields:
        one: Classified | None = getattr(classifier, name)
        if one is not None:
            auroc = "" if one.auroc is None else f"{one.auroc:.3f}"
            table.add_row(name.replace("_", " "), f"{one.accuracy:.3f}", f"{one.macro_f1:.3f}",
                          auroc, str(one.rows), str(one.left_out))  # fmt: skip
    return table


def _probabilities(result: Report) -> Table:
    alarms = "" if result.false_alarms is None else f"{result.false_alarms:.1%}"
    table = Table(
        "probability of a hit", "ECE", "Brier skill", "AUROC", "base rate", "ECE, wide",
        title="Trust", caption=f"queries of known classes called strange: {alarms}",
    )  # fmt: skip
    for bits, one in result.probability.items():
        auroc = "" if one.auroc is None else f"{one.auroc:.3f}"
        wide = result.probability_wide.get(bits)
        table.add_row(f"{bits} bits", f"{one.expected_calibration_error:.3f}",
                      f"{one.brier_skill:.3f}", auroc, f"{one.base_rate:.3f}",
                      f"{wide.expected_calibration_error:.3f}" if wide else "")  # fmt: skip
    return table


def _strangers(strangers: dict[str, Strangeness]) -> Table:
    table = Table("strangers", "AUROC against the queries", "detected", title="Strangers")
    for name, one in strangers.items():
        table.add_row(name, f"{one.auroc:.3f}", f"{one.detected:.0%}")
    return table
