"""``dafh token``: a new token for a caller, shown once; the file keeps its hash."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from dafh.security.accounts import Account, AccountFile, new_token, read_accounts, token_hash
from dafh.security.identity import ANYBODY_TENANT, Role
from dafh.writing import written

DAY_S = 24 * 3600


def token(
    file: Annotated[Path, typer.Argument(help="File of accounts; made where there is none.")],
    subject: Annotated[str, typer.Argument(help="Who gets the token: a program, not a patient.")],
    role: Annotated[list[Role], typer.Option(help="What it may do; may be repeated.")],
    tenant: Annotated[str, typer.Option(help="Whose archives it sees.")] = ANYBODY_TENANT,
    days: Annotated[int, typer.Option(help="How long it is good for; 0: for ever.", min=0)] = 365,
) -> None:
    """Add a caller and print its token, which cannot be shown again; a former one of SUBJECT ends.

    Point DAFH_ACCOUNTS of the gateway to FILE; it notices changes by itself.
    """
    accounts = read_accounts(file).accounts if file.exists() else ()
    made = new_token()
    account = Account(
        subject=subject,
        tenant=tenant,
        roles=frozenset(role),
        token_sha256=token_hash(made),
        expires=time.time() + days * DAY_S if days else None,
    )
    others = tuple(one for one in accounts if one.subject != subject)
    content = AccountFile(accounts=(*others, account))
    with written(file) as stream:
        stream.write(f"{content.model_dump_json(indent=2)}\n".encode())
    typer.echo(made)
