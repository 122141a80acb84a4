"""JSON Web Tokens of an identity provider (RFC 7519, RFC 7517; OpenID Connect).

Only signatures by public keys are taken: a token that names another algorithm, or none, proves
nothing, whatever it says.
"""

from __future__ import annotations

import logging
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt

from dafh.errors import Misconfigured, Reason
from dafh.security.accounts import TENANT
from dafh.security.identity import Credentials, Identity, Role, unauthenticated

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
#: Seconds by which clocks may differ.
LEEWAY_S = 30
#: Longest token, characters.
LONGEST = 16_384
#: Seconds after which the keys are fetched again, and at the earliest for a key that is not known.
FRESH_S, RETRY_S = 300.0, 10.0
#: Seconds that fetching may take, and bytes.
FETCH_S, MOST_BYTES = 5.0, 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Issuer:
    """An identity provider, and what its tokens must say."""

    #: Where its keys are: an ``https://`` address, or a file.
    jwks: str
    #: Claims ``iss`` and ``aud``.
    issuer: str
    audience: str
    #: Claims that hold tenant and roles; a path such as ``realm_access.roles`` leads into objects.
    tenant_claim: str = "tenant"
    roles_claim: str = "roles"


class Jwks:
    """The keys of an identity provider, fetched again as they grow old.

    Parameters
    ----------
    source
        ``https://`` address, or a file.

    Raises
    ------
    Misconfigured
        The address is not one that can be trusted.
    """

    def __init__(self, source: str) -> None:
        scheme = urlsplit(source).scheme
        if scheme not in ("", "https"):
            raise Misconfigured(
                Reason.INSECURE_ADDRESS,
                "Keys are fetched over https:// or read from a file.",
                subject="jwks",
            )
        self._source = source
        self._remote = scheme == "https"
        self._lock = threading.Lock()
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched = self._tried = -RETRY_S

    def key(self, name: str) -> jwt.PyJWK | None:
        """Return the key of a name (``kid``), fetching where it is not known or known for long."""
        with self._lock:
            now = time.monotonic()
            known = self._keys.get(name)
            stale = now - self._fetched > FRESH_S
            # Names come from callers: they must not make us fetch all the time.
            if (known is None or stale) and now - self._tried > RETRY_S:
                self._tried = now
                self._fetch()
                known = self._keys.get(name)
            return known

    def _fetch(self) -> None:
        try:
            keys = jwt.PyJWKSet.from_json(self._read().decode()).keys
        except (OSError, ValueError, jwt.PyJWTError) as error:
            # Those that are known hold for as long as the provider is away.
            _log.warning("no keys", extra={"cause": type(error).__name__})
            return
        self._keys = {key.key_id: key for key in keys if key.key_id}
        self._fetched = time.monotonic()

    def _read(self) -> bytes:
        if not self._remote:
            return Path(self._source).read_bytes()[:MOST_BYTES]
        with urllib.request.build_opener(_Straight).open(self._source, timeout=FETCH_S) as answer:
            found: bytes = answer.read(MOST_BYTES)
            return found


class _Straight(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: a redirection could lead to plaintext."""

    def redirect_request(self, *_arguments: object) -> None:
        """Follow nothing."""


class JwtAuthenticator:
    """Tells callers by the tokens of an identity provider.

    Parameters
    ----------
    issuer
        The provider.
    """

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._keys = Jwks(issuer.jwks)

    def identify(self, credentials: Credentials) -> Identity | None:
        """Return who brings a token; ``None`` where there is no JWT.

        Raises
        ------
        Unauthenticated
            It is not signed by the provider, not for us, expired, or does not say for which tenant.
        """
        token = credentials.token
        if token.count(".") != 2:
            return None
        claims = self._claims(token)
        tenant, roles = self._tenant(claims), self._roles(claims)
        return Identity(claims["sub"], tenant, roles)

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > LONGEST:
            raise unauthenticated("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, name = header.get("alg"), header.get("kid")
            if algorithm not in ALGORITHMS or not isinstance(name, str):
                raise unauthenticated("The token is not signed by a public key that it names.")
            key = self._keys.key(name)
            if key is None:
                raise unauthenticated("The token is signed by a key that is not known.")
            return jwt.decode(
                token,
                # A key is good for the algorithm that it was made for, and for no other.
                key,
                algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else [],
                audience=self._issuer.audience,
                issuer=self._issuer.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise unauthenticated("The token has expired.") from None
        except jwt.PyJWTError:
            raise unauthenticated("The token is not valid here.") from None

    def _tenant(self, claims: Mapping[str, Any]) -> str:
        tenant = _claim(claims, self._issuer.tenant_claim)
        if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
            raise unauthenticated("The token does not say for which tenant it is.")
        return tenant

    def _roles(self, claims: Mapping[str, Any]) -> frozenset[Role]:
        told = _claim(claims, self._issuer.roles_claim)
        words = told.split() if isinstance(told, str) else told
        if not isinstance(words, list):
            return frozenset()
        # What is not ours is of another program of the provider.
        return frozenset(Role(word) for word in words if word in set(Role))


def _claim(claims: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - whatever a token says
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found
