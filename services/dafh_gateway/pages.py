"""Page tokens: where a page ended, sealed, bound to the request and to what it was answered from.

Sealed with a key that all replicas share (Fernet: AES and HMAC-SHA-256), so that any of them can
answer the next page, nobody can make one up, and the pseudonym of the query's patient that must not
answer cannot be read out of one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import TypeVar

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, ValidationError

from dafh.errors import InvalidInput, Reason

#: Seconds for which a token is good.
LIFE_S = 24 * 3600
#: Longest token, characters.
LONGEST = 8192


class Page(BaseModel):
    """What a token holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tenant: str
    #: SHA-256 of the request without what may change from page to page.
    request: str


Kind = TypeVar("Kind", bound=Page)


class ListPage(Page):
    """Where a list goes on."""

    after: str


class AnswerPage(Page):
    """Where an answer goes on, and what was asked, so that no image has to be sent twice."""

    #: Key of the coding that answered.
    coding: str
    #: SHA-256 of the query, which may be repeated; "" where it may not.
    query: str
    #: Hexadecimal.
    code: str
    #: Base64 of float32; "" where the query has none.
    hash_output: str
    #: SOP instance, study and patient key that may not answer.
    exclude: tuple[str, str, str]
    #: Place of the last hit: distance, score, id.
    after: tuple[int, float, str]
    #: Hits that may still come.
    left: int


class PageTokens:
    """Makes and reads page tokens.

    Parameters
    ----------
    keys
        Secrets; the first one seals, all of them open.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._seal = MultiFernet([Fernet(_fernet_key(key)) for key in keys])

    def write(self, page: Page) -> str:
        """Return the token of a page."""
        return self._seal.encrypt(page.model_dump_json().encode()).decode()

    def read(self, kind: type[Kind], token: str, tenant: str, request: str) -> Kind:
        """Read a token that a caller sends back.

        Raises
        ------
        InvalidInput
            It is not one of ours, too old, or belongs to another request.
        """
        try:
            if len(token) > LONGEST or not token.isascii():
                raise InvalidToken
            page = kind.model_validate_json(self._seal.decrypt(token, ttl=LIFE_S))
        except (InvalidToken, ValidationError):
            raise wrong_token("is not one of this service, or is too old") from None
        if page.tenant != tenant or page.request != request:
            raise wrong_token("belongs to another request")
        return page


def wrong_token(fault: str) -> InvalidInput:
    """Return the error of a token that cannot be used."""
    return InvalidInput(
        Reason.ARGUMENT_INVALID,
        f"page_token {fault}.",
        remedy="Begin again with the first page.",
        subject="page_token",
    )


def fingerprint(request: Message, *but: str) -> str:
    """Return the SHA-256 of a request without some of its fields."""
    same = type(request)()
    same.CopyFrom(request)
    for name in but:
        same.ClearField(name)
    kind = request.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(kind + b"\0" + same.SerializeToString(deterministic=True)).hexdigest()


def _fernet_key(key: bytes) -> bytes:
    return base64.urlsafe_b64encode(hmac.new(key, b"dafh page tokens", hashlib.sha256).digest())
