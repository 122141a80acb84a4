from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dafh.encoding.scripted import ScriptedEncoder
from dafh.errors import InvalidInput
from dafh.evaluation.encoded import Rows, encode_manifest
from dafh.evaluation.manifest import Entry, in_no_order, read_manifest
from dafh.evaluation.metrics import average_precision
from dafh.evaluation.protocol import by_codes, by_pixels, few_groups, measure
from dafh.evaluation.report import report

COLUMNS = ("file", "class", "split", "group", "modality", "organ", "cancer_type")


def rows(count: int, seed: int) -> Rows:
    """Return random images of six classes, two organs, two modalities, groups of two."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 6, count)
    entries = tuple(
        Entry(Path(f"{n}.png"), f"class{c}", "", f"{c}-{n // 2}", ("CT", "MR")[c % 2],
              ("lung", "brain")[c // 3], ("none", "one", "one", "two", "two", "two")[c])
        for n, c in enumerate(classes.tolist())
    )  # fmt: skip
    centres = np.random.default_rng(9).normal(size=(6, 32))
    hashes = np.tanh(centres[classes] + random.normal(size=(count, 32)) * 1.5).astype(np.float32)
    logits = random.normal(size=(count, 6)).astype(np.float32)
    return Rows(entries, {32: hashes}, logits, hashes, Counter())


def slow_map(
    query: Rows, database: Rows, relevant: str = "class_name", rule: str = "all"
) -> dict[str, float]:
    """MAP@10 written once more, from the words of the protocol, one pair at a time."""
    found: dict[str, list[float]] = {}
    for asks, output in zip(query.entries, query.hashes[32], strict=True):
        own = getattr(asks, relevant)
        ranked = []
        for place, (answers, stored) in enumerate(
            zip(database.entries, database.hashes[32], strict=True)
        ):
            if rule == "other group" and answers.group == asks.group:
                continue
            if rule == "same organ" and answers.organ != asks.organ:
                continue
            if rule == "other modality" and answers.modality == asks.modality:
                continue
            signs = [1.0 if value > 0 else -1.0 for value in stored]
            bits = sum((value > 0) != (sign > 0) for value, sign in zip(output, signs, strict=True))
            agreement = sum(float(v) * s for v, s in zip(output, signs, strict=True)) / 32
            ranked.append((bits, round((1 - agreement) / 2, 9), place, getattr(answers, relevant)))
        if relevant == "cancer_type" and (own == "none" or own not in {r[3] for r in ranked}):
            continue
        hits, total = 0, 0.0
        for rank, hit in enumerate(sorted(ranked)[:10], start=1):
            if hit[3] == own:
                hits += 1
                total += hits / rank
        found.setdefault(own, []).append(total / hits if hits else 0.0)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


def test_every_figure_equals_that_of_a_second_implementation() -> None:
    database, query = rows(150, 1), rows(60, 2)
    measured = measure(database, query, by_codes(32), by_codes(32, ties=False))
    assert measured.map_at_10.per_class == pytest.approx(slow_map(query, database))
    assert measured.wide.per_class == pytest.approx(
        slow_map(database, database, rule="other group")
    )
    for organ, figures in measured.hard_sets.items():
        chosen = [n for n, entry in enumerate(query.entries) if entry.organ == organ]
        part = Rows(tuple(query.entries[n] for n in chosen), {32: query.hashes[32][chosen]},
                    query.logits[chosen], query.thumbnails[chosen])  # fmt: skip
        assert figures.per_class == pytest.approx(slow_map(part, database, rule="same organ"))
    assert set(measured.hard_sets) == {"lung", "brain"}
    assert measured.cancer_type is not None
    assert measured.cancer_type.per_class == pytest.approx(slow_map(query, database, "cancer_type"))
    assert measured.cancer_type_across_modalities is not None
    assert measured.cancer_type_across_modalities.per_class == pytest.approx(
        slow_map(query, database, "cancer_type", "other modality")
    )
    # Each query has ten hits, so shares of hits by modality must average to those of its classes.
    classes = np.array(query.classes)
    for modality, figures in measured.per_modality.items():
        own = set(classes[query.column("modality") == modality])
        assert figures.per_class == {name: measured.map_at_10.per_class[name] for name in own}


def flat(figures: object, name: str = "") -> dict[str, float]:
    """Return nested figures with one level of keys."""
    if isinstance(figures, dict):
        parts = [flat(value, f"{name}/{key}") for key, value in figures.items()]
    elif isinstance(figures, tuple):
        parts = [flat(value, f"{name}/{place}") for place, value in enumerate(figures)]
    else:
        return {name: figures} if isinstance(figures, (int, float)) else {}
    return {key: value for part in parts for key, value in part.items()}


def test_no_figure_depends_on_the_order_of_the_database() -> None:
    database, query = rows(150, 1), rows(40, 2)
    turned = Rows(database.entries[::-1], {32: database.hashes[32][::-1].copy()},
                  database.logits[::-1], database.thumbnails[::-1])  # fmt: skip
    one, two = (measure(some, query, by_codes(32)) for some in (database, turned))
    assert flat(one.model_dump()) == pytest.approx(flat(two.model_dump()))


def test_of_equal_codes_no_class_answers_first(tmp_path: Path) -> None:
    """Manifests are sorted by class; were that order kept, the first class would be found best."""
    names = ["a"] * 40 + ["b"] * 40
    entries = [Entry(tmp_path / name / f"{n}.png", name, "", f"{n}")
               for n, name in enumerate(names)]  # fmt: skip
    same = np.ones((80, 16), np.float32)
    database = Rows(tuple(in_no_order(entries, tmp_path)), {16: same}, same, same)
    query = Rows(tuple(entries[::20]), {16: same[:4]}, same[:4], same[:4])
    found = measure(database, query, by_codes(16)).precision[10].per_class
    assert found["a"] + found["b"] == pytest.approx(1)
    assert 0.2 <= found["a"] <= 0.8
    moved = [replace(one, file=Path("/elsewhere") / one.file.relative_to(tmp_path))
             for one in reversed(entries)]  # fmt: skip
    again = in_no_order(moved, Path("/elsewhere"))
    assert [one.group for one in again] == [one.group for one in database.entries]


def test_where_nobody_may_answer_no_figure_is_made_up() -> None:
    database, query = rows(30, 1), rows(10, 2)
    alone = replace(database, entries=tuple(replace(one, group="p") for one in database.entries))
    wide = measure(alone, query, by_codes(32)).wide
    assert (wide.macro, wide.macro_bar, wide.macro_interval, wide.queries) == (None, None, None, 0)
    assert wide.model_dump(mode="json", exclude_none=True) == {"per_class": {}, "queries": 0}


def test_hamming_only_is_the_mean_over_orders_of_ties() -> None:
    entries = tuple(Entry(Path(f"{n}"), name, "", f"{n}") for n, name in enumerate("ab"))
    same = np.ones((2, 16), np.float32)
    database = Rows(entries, {16: same}, same, same)
    query = Rows(entries[:1], {16: same[:1]}, same[:1], same[:1])
    measured = measure(database, query, by_codes(16), by_codes(16, ties=False))
    assert measured.hamming_only is not None
    assert measured.hamming_only.macro is not None
    # The one relevant case ties for ranks 1 and 2: AP is 1 or 1/2.
    assert 0.55 < measured.hamming_only.macro < 0.95


def test_a_class_of_few_query_groups_is_marked() -> None:
    entries = [Entry(Path(f"{n}"), "few" if n < 6 else "many", "", f"{n % 12}") for n in range(6)]
    entries += [Entry(Path(f"{n}"), "one patient", "", "p") for n in range(9)]
    empty = np.zeros((len(entries), 16), np.float32)
    assert few_groups(Rows(tuple(entries), {16: empty}, empty, empty)) == ["one patient"]


def write(root: Path, lines: Sequence[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS) -> Path:
    """Write pictures whose pattern is their class's, with some noise, and their manifest."""
    for number, line in enumerate(lines):
        pattern = np.random.default_rng(sum(line[1].encode())).integers(0, 200, (40, 40))
        noise = np.random.default_rng(number).integers(0, 40, (40, 40))
        cv2.imwrite(str(root / line[0]), (pattern + noise).astype(np.uint8))
    manifest = root / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *lines])
    return manifest


LINES = [
    (f"{number}.png", name, split, f"{name}{number}", "CT", "lung", kind)
    for number, (name, split, kind) in enumerate(
        [("a", "database", "x"), ("b", "database", "y"), ("new", "database", "z"),
         ("a", "query", "x"), ("b", "query", "y"), ("new", "query", "z"), ("a", "train", "x")]
    )
]  # fmt: skip


def test_the_report_has_every_key_that_the_documentation_names(tmp_path: Path) -> None:
    encoder = ScriptedEncoder()
    manifest = write(tmp_path, LINES)
    splits = encode_manifest(manifest, tmp_path, encoder)
    listed = in_no_order(read_manifest(manifest, tmp_path), tmp_path)
    for name, part in splits.items():
        assert list(part.entries) == [entry for entry in listed if entry.split == name]
    figures = json.loads(json.dumps(report(splits, encoder, [16, 64]).as_json()))
    assert figures["64"]["map_at_10"]["macro"] == 1.0
    assert figures["16"]["map_at_10"]["per_class"].keys() == {"a", "b", "new"}
    assert figures["16"]["map_at_10"].keys() >= {"macro_bar", "macro_interval"}
    assert figures["64"].keys() >= {
        "hamming_only", "precision", "wide", "per_modality", "hard_sets", "cancer_type",
        "neighbours",
    }  # fmt: skip
    assert figures["64"]["precision"].keys() == {"1", "5", "10"}
    assert figures.keys() >= {"16", "64", "pixels", "classifier", "few_groups", "refused"}
    # The model knows the classes a and b only.
    judged = figures["classifier"]["by_class"]
    assert (judged["rows"], judged["left_out"]) == (2, 1)
    assert figures["classifier"]["by_cancer_type"]["left_out"] == 1


def test_file_class_and_split_are_enough(tmp_path: Path) -> None:
    manifest = write(tmp_path, [line[:3] for line in LINES], COLUMNS[:3])
    splits = encode_manifest(manifest, tmp_path, ScriptedEncoder())
    measured = measure(splits["database"], splits["query"], by_pixels)
    assert measured.map_at_10.macro == 1.0
    assert measured.per_modality == measured.hard_sets == {}
    assert measured.cancer_type is None


def test_a_file_that_imaging_refuses_is_left_out_and_counted(tmp_path: Path) -> None:
    manifest = write(tmp_path, LINES)
    (tmp_path / "2.png").write_bytes(b"no picture")
    splits = encode_manifest(manifest, tmp_path, ScriptedEncoder())
    assert sorted(splits["database"].classes) == ["a", "b"]
    assert splits["database"].refused == {"NOT_AN_IMAGE": 1}


@pytest.mark.parametrize("column", ["split", "file", "class"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    columns = tuple("other" if name == column else name for name in COLUMNS)
    with pytest.raises(InvalidInput, match=column):
        encode_manifest(write(tmp_path, LINES, columns), tmp_path, ScriptedEncoder())


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="query"):
        encode_manifest(write(tmp_path, LINES[:3]), tmp_path, ScriptedEncoder())


def test_average_precision_of_nobody_is_nothing() -> None:
    assert average_precision(np.zeros((0, 10), bool)).shape == (0,)
