from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dafh.encoding.scripted import ScriptedEncoder
from dafh.errors import InvalidInput
from dafh.evaluation.protocol import evaluate


def write(root: Path, rows: list[tuple[str, str, int]], header: str = "file,class,split") -> Path:
    lines = [header]
    for name, (kind, split, pattern) in zip("abcdef", rows, strict=False):
        picture = np.random.default_rng(pattern).integers(0, 256, (40, 40), dtype=np.uint8)
        cv2.imwrite(str(root / f"{name}.png"), picture)
        lines.append(f"{name}.png,{kind},{split}")
    manifest = root / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def test_a_query_finds_its_own_picture_in_the_database(tmp_path: Path) -> None:
    rows = [
        ("x", "database", 1), ("y", "database", 2),
        ("x", "query", 1), ("y", "query", 2), ("x", "train", 3),
    ]  # fmt: skip
    result = evaluate(write(tmp_path, rows), tmp_path, ScriptedEncoder(), [64])
    assert result[64].per_class == {"x": 1.0, "y": 1.0}


def test_a_class_that_the_database_lacks_scores_zero(tmp_path: Path) -> None:
    rows = [("x", "database", 1), ("y", "query", 2)]
    assert evaluate(write(tmp_path, rows), tmp_path, ScriptedEncoder(), [16])[16].macro == 0


@pytest.mark.parametrize("header", ["file,class,part", "name,class,split"])
def test_a_missing_column_is_named(tmp_path: Path, header: str) -> None:
    manifest = write(tmp_path, [("x", "database", 1)], header)
    with pytest.raises(InvalidInput, match=r"split|file"):
        evaluate(manifest, tmp_path, ScriptedEncoder(), [64])


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    manifest = write(tmp_path, [("x", "database", 1)])
    with pytest.raises(InvalidInput, match="query"):
        evaluate(manifest, tmp_path, ScriptedEncoder(), [64])
