"""Two models that any test can be: each makes another code of the same case."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.index.archives import Archives
from dafh.index.case import Case, CaseId, Coding
from dafh.index.catalogue import Catalogue
from dafh.index.connection import Connection
from dafh.index.live import Arrival
from dafh.index.pointer import Pointer
from dafh.index.rows import Rows

SECOND = "cd" * 32


def soon() -> Deadline:
    return Deadline.after(60)


def second(coding: Coding) -> Coding:
    """Return the coding of the same archive by the other model."""
    return replace(coding, model_hash=SECOND, model_version=2)


def code_by(model_hash: str, case: Case, bits: int = 64) -> HashCode:
    """Return what a model makes of a case: of each case something else."""
    made = hashlib.sha256(f"{model_hash} {case.sop_instance_uid}".encode()).digest()
    return HashCode(made[: bits // 8])


def arrival(case: Case, *codings: Coding) -> Arrival:
    """Return a case as a writer with the models of these codings brings it."""
    return Arrival(case, {one.key: code_by(one.model_hash, case, one.bits) for one in codings})


def pointer_of(connection: Connection, coding: Coding) -> Pointer:
    """Return the pointer of the archive that a coding is of."""
    catalogue = Catalogue(connection, coding.tenant)
    record = catalogue.record(coding.archive, soon())
    assert record is not None
    return catalogue.pointer(coding.archive, record.pointer, soon())


def recode(
    coding: Coding, *, without: Sequence[CaseId] = ()
) -> Callable[[Sequence[Case]], Mapping[CaseId, HashCode]]:
    """Return what makes codes from pixels, of all cases but those without."""
    return lambda cases: {
        case.id: code_by(coding.model_hash, case, coding.bits)
        for case in cases
        if case.id not in without
    }


def two_codings(connection: Connection, coding: Coding) -> tuple[Archives, Coding]:
    archives, other = Archives(connection, coding.tenant), second(coding)
    archives.create(coding, soon())
    archives.add_coding(other, soon())
    return archives, other


def held(connection: Connection, coding: Coding) -> list[CaseId]:
    return Rows(connection, coding).keys("", 1_000, soon())


class Died(BaseException):
    """The program ended here, without a chance to do anything more."""


@contextmanager
def dying_after(calls: int, connection: Connection) -> Iterator[None]:
    """Let a connection's program die before a call, and every call after that one fail too."""
    left, run = calls, connection.run

    def counted(stage: str, deadline: Deadline, call: Callable[..., Any]) -> Any:  # noqa: ANN401 - as run
        nonlocal left
        left -= 1
        if left < 0:
            raise Died
        return run(stage, deadline, call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "run", counted)
        yield


@contextmanager
def dying_at(name: str, connection: Connection) -> Iterator[None]:
    """Let a connection's program die before the first call of a method of pymilvus's client."""
    call = connection.call

    def watched(stage: str, deadline: Deadline, called: str, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as call
        if called == name:
            raise Died
        return call(stage, deadline, called, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "call", watched)
        yield


def before_the_first(
    monkeypatch: pytest.MonkeyPatch, kind: type, name: str, act: Callable[[], object]
) -> None:
    """Do something before a method is called for the first time."""
    call = getattr(kind, name)

    def called(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(kind, name, call)
        act()
        return call(*arguments, **named)

    monkeypatch.setattr(kind, name, called)
