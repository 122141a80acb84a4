"""Nothing that people wrote is there for nobody."""

from __future__ import annotations

import re
from pathlib import Path

from vulture import Vulture  # type: ignore[import-untyped]  # It has no types.

from tests.house.test_house import CHECKOUT, files

PYTHON = (
    "bench",
    "dafh",
    "export",
    "fuzz",
    "guide",
    "k8s",
    "mutants",
    "protos",
    "services",
    "tests",
)
#: Names that somebody reads, writes or calls whom vulture does not see -> who that is.
SEEN_ELSEWHERE = {
    # Of many names.
    "model_config": "pydantic",
    "pytestmark": "pytest",
    "pytest_*": "pytest",
    "test_*": "pytest",
    # In bench, dafh and services.
    "TritonPythonModel": "Triton's python backend",
    "initialize": "Triton's python backend",
    "do_GET": "http.server",
    "do_HEAD": "http.server",
    "readable": "io",
    "readinto": "io",
    "exec_module": "importlib",
    "log_message": "http.server",
    "version_string": "http.server",
    "redirect_request": "urllib",
    "intercept_*": "gRPC",
    "wait_for_ready": "gRPC, of the details of a call",
    "negation": "lark, for a rule of the grammar",
    "presence": "lark, for a rule of the grammar",
    "restriction": "lark, for a rule of the grammar",
    "databases": "Capabilities.require, by name",
    "bin_ivf_flat": "Capabilities.require, by name",
    "by_cancer_type*": "whoever reads figures.json",
    "by_class_wide": "whoever reads figures.json",
    "equal_codes": "dafh.training.table_report, in the JSON of finished runs",
    "false_alarms_wide": "whoever reads figures.json",
    "queries_by_class": "whoever reads figures.json",
    "float_macro_bar": "whoever reads the results of the benchmark",
    "mebibytes": "whoever reads the results of the benchmark",
    "p95_ms": "whoever reads the results of the benchmark",
    "per_second": "whoever reads the results of the benchmark",
    "SAME_COMPUTE_CAPABILITY": "the command line, as a choice",
    "phase_start": "TensorRT",
    "phase_finish": "TensorRT",
    "on_config": "MkDocs",
    "on_page_markdown": "MkDocs",
}
#: Their functions are called by who called the decorator.
DECORATORS = [
    "@app.command",
    "@app.callback",
    "@model_validator",
    "@pytest.fixture",
    "@*.fixture",
    "@st.composite",
    "@rule",
    "@invariant",
]


def dead(paths: list[Path]) -> list[str]:
    """Return what vulture finds unused; attributes are left out, which outside libraries read."""
    vulture = Vulture(ignore_names=list(SEEN_ELSEWHERE), ignore_decorators=DECORATORS)
    vulture.scavenge([str(path) for path in paths])
    return [
        f"{item.filename}:{item.first_lineno} {item.name}"
        for item in vulture.get_unused_code(min_confidence=60)
        if item.typ != "attribute"
    ]


def is_defined(pattern: str, sources: list[str]) -> bool:
    """Say whether something is defined by a name; it may be mentioned as often as it likes."""
    name = pattern.replace("*", r"\w*")
    definition = re.compile(rf"^\s*((def|class) {name}\b|{name}\s*(:|=[^=]))", re.MULTILINE)
    return any(definition.search(source) for source in sources)


def test_a_mention_is_no_definition() -> None:
    assert is_defined("late", ["class A:\n    late: int\n"])
    assert is_defined("late_*", ["async_ = 1\ndef late_again() -> None: ...\n"])
    assert not is_defined("late", ['"""It is late."""\nif x == late: ...\n"late": 1\nlater = 2\n'])


def test_nothing_is_dead() -> None:
    pyproject = (CHECKOUT / "pyproject.toml").read_text()
    found = dead(files(*PYTHON, suffix=".py"))
    # Entry points name functions in text.
    assert [one for one in found if f':{one.rpartition(" ")[2]}"' not in pyproject] == []


def test_what_is_dead_is_seen_and_an_exception_that_nobody_needs_too(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text("ALIVE = 1\n\n\ndef forgotten():\n    return ALIVE\n")
    assert dead([path]) == [f"{path}:4 forgotten"]
    sources = [path.read_text() for path in files(*PYTHON, suffix=".py")]
    assert [word for word in SEEN_ELSEWHERE if not is_defined(word, sources)] == []
    assert all(who for who in SEEN_ELSEWHERE.values())
