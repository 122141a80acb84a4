"""Callers that a small site writes down itself: by the hash of a token, or by a certificate's name.

A token is 256 random bits, so that its plain SHA-256 cannot be turned back; the file holds nothing
that would let anybody in.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dafh.errors import Misconfigured, Reason
from dafh.security.identity import Credentials, Identity, Role, unauthenticated
from dafh.security.keys import read_secret
from dafh.security.watched import Watched

#: How a token of ours begins, so that it is known when it is found where it should not be.
PREFIX = "dafh_"
#: As the index takes it (`dafh.index.schema`).
TENANT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")

Tenant = Annotated[str, Field(pattern=f"^{TENANT.pattern}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Account(_Strict):
    """A caller."""

    subject: Annotated[str, Field(min_length=1, max_length=128)]
    tenant: Tenant
    roles: frozenset[Role]
    #: SHA-256 of its token, hexadecimal; "" where it has none.
    token_sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    #: Common or alternative name in its certificate; "" where it has none.
    certificate: str = ""
    #: Seconds since the epoch after which it is nobody; ``None`` for never.
    expires: float | None = None

    @property
    def identity(self) -> Identity:
        """Who it is."""
        return Identity(self.subject, self.tenant, self.roles)

    @property
    def expired(self) -> bool:
        """Whether it is nobody any more."""
        return self.expires is not None and time.time() > self.expires


class AccountFile(_Strict):
    """Contents of the file."""

    accounts: tuple[Account, ...] = ()


class Accounts:
    """Tells callers by the file; a changed file holds from the next call on.

    Parameters
    ----------
    file
        JSON, mode 0600.

    Raises
    ------
    Misconfigured
        It cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._accounts = Watched((file,), lambda: read_accounts(file).accounts)

    def identify(self, credentials: Credentials) -> Identity | None:
        """Return who brings these credentials; ``None`` where no account is theirs."""
        accounts, _ = self._accounts.get()
        found = None
        if credentials.token:
            given = token_hash(credentials.token)
            for account in accounts:
                # All are looked at, each for as long.
                if hmac.compare_digest(account.token_sha256, given):
                    found = account
        elif credentials.certificate_names:
            # An account without a certificate is not that of a certificate without a name.
            names = set(credentials.certificate_names) - {""}
            found = next((one for one in accounts if one.certificate in names), None)
        if found is None:
            return None
        if found.expired:
            raise unauthenticated("The account has expired.")
        return found.identity


def read_accounts(file: Path) -> AccountFile:
    """Read the file.

    Raises
    ------
    Misconfigured
        It cannot be read, others can read it, or it is not what it should be.
    """
    text = read_secret(file, "Make one with `dafh token`.")
    try:
        return AccountFile.model_validate_json(text)
    except ValidationError:
        raise Misconfigured(
            Reason.SETTING_INVALID,
            f"{file} is not a file of accounts.",
            remedy="Make entries with `dafh token`.",
            subject="accounts",
        ) from None


def new_token() -> str:
    """Return a new token: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
