"""Callers that a site writes down itself."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dafh.errors import Misconfigured, Unauthenticated
from dafh.security.accounts import Account, AccountFile, Accounts, new_token, token_hash
from dafh.security.identity import Credentials, Identity, Role


def dafh_token(file: Path, subject: str, *options: str) -> str:
    command = [str(Path(sys.executable).with_name("dafh")), "token", str(file), subject, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_token_lets_its_caller_in_and_is_kept_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "accounts.json"
    token = dafh_token(file, "viewer", "--role", "reader", "--tenant", "north")
    other = dafh_token(file, "loader", "--role", "indexer", "--role", "reader", "--days", "0")
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in file.read_text()
    known = Accounts(file)
    viewer, loader = known.identify(Credentials(token)), known.identify(Credentials(other))
    assert viewer is not None
    assert loader is not None
    assert viewer == Identity("viewer", "north", frozenset({Role.READER}))
    assert loader == Identity("loader", "default", frozenset({Role.READER, Role.INDEXER}))
    for wrong in ("", "x", token[:-1], token + "x", token.lower()):
        assert known.identify(Credentials(wrong)) is None


def test_a_changed_file_holds_from_the_next_call_on(tmp_path: Path) -> None:
    file = tmp_path / "accounts.json"
    old = dafh_token(file, "viewer", "--role", "reader")
    known = Accounts(file)
    new = dafh_token(file, "viewer", "--role", "reader")
    assert known.identify(Credentials(old)) is None
    assert known.identify(Credentials(new))
    file.write_text("half a fi")
    assert known.identify(Credentials(new))


def test_an_expired_account_is_nobody(tmp_path: Path) -> None:
    token, file = new_token(), tmp_path / "accounts.json"
    account = Account(
        subject="x", tenant="a", roles=frozenset(), token_sha256=token_hash(token),
        expires=time.time() - 1,
    )  # fmt: skip
    file.write_text(AccountFile(accounts=(account,)).model_dump_json())
    file.chmod(0o600)
    with pytest.raises(Unauthenticated):
        Accounts(file).identify(Credentials(token))


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "accounts.json"
    dafh_token(file, "viewer", "--role", "reader")
    file.chmod(0o640)
    with pytest.raises(Misconfigured):
        Accounts(file)


def test_an_account_without_a_token_has_no_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "accounts.json"
    account = Account(subject="x", tenant="a", roles=frozenset(), certificate="x.example")
    by_token = Account(subject="y", tenant="a", roles=frozenset(), token_sha256="0" * 64)
    file.write_text(AccountFile(accounts=(account, by_token)).model_dump_json())
    file.chmod(0o600)
    known = Accounts(file)
    assert known.identify(Credentials("", ())) is None
    assert known.identify(Credentials("", ("",))) is None
    assert known.identify(Credentials("", ("x.example",)))
