"""Who calls: proven by a certificate or a token, never said by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dafh.errors import Reason, Unauthenticated

#: Tenant of callers without an identity (`dafh.index.case.DEFAULT_TENANT`).
ANYBODY_TENANT = "default"


class Role(StrEnum):
    """What a caller may do; a caller may have several."""

    #: Ask questions and look at cases.
    READER = "reader"
    #: Add cases.
    INDEXER = "indexer"
    #: Everything, archives and erasure included.
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller."""

    #: Its name, for the audit; not of a patient.
    subject: str
    #: Whose archives it sees; it sees no other's.
    tenant: str
    roles: frozenset[Role]


#: Whoever reaches a gateway that asks nobody who they are: on loopback only.
ANYBODY = Identity("anybody", ANYBODY_TENANT, frozenset(Role))


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call brings to prove who makes it."""

    #: Of the ``authorization`` header: what follows ``Bearer``; "" where there is none.
    token: str = ""
    #: Common names and DNS or URI names in the client's verified certificate.
    certificate_names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, metadata: Mapping[str, str], certificate_names: tuple[str, ...] = ()
    ) -> Credentials:
        """Read the metadata of a call."""
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        return cls(token.strip() if scheme.lower() == "bearer" else "", certificate_names)


class Authenticator(Protocol):
    """Tells who a caller is."""

    def identify(self, credentials: Credentials) -> Identity | None:
        """Return who brings these credentials; ``None`` where they are not of this kind.

        Raises
        ------
        Unauthenticated
            They are of this kind, and prove nothing.
        """
        ...


class Anybody:
    """Asks nobody who they are; for loopback."""

    def identify(self, credentials: Credentials) -> Identity | None:
        """Return the one identity there is."""
        del credentials
        return ANYBODY


def unauthenticated(why: str) -> Unauthenticated:
    """Return the error of a caller who proves nothing; `why` says nothing that helps to guess."""
    return Unauthenticated(
        Reason.UNAUTHENTICATED,
        why,
        remedy="Send a valid token as `authorization: Bearer ...`, or a client certificate.",
    )
