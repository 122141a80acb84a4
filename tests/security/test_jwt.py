"""Tokens of an identity provider: what is forged, stale or meant for others proves nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dafh.errors import Misconfigured, Unauthenticated
from dafh.security import jwt as ours
from dafh.security.identity import Credentials, Identity, Role
from dafh.security.jwt import ALGORITHMS, Issuer, Jwks, JwtAuthenticator
from tests.security.signers import AUDIENCE, ISSUER, Provider, make_key, public_jwk


@pytest.fixture
def provider(tmp_path: Path) -> Provider:
    return Provider(tmp_path / "jwks.json")


def authenticator(provider: Provider, **claims: str) -> JwtAuthenticator:
    return JwtAuthenticator(Issuer(str(provider.file), ISSUER, AUDIENCE, **claims))


def identify(provider: Provider, token: str) -> Identity | None:
    return authenticator(provider).identify(Credentials(token))


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES384", "EdDSA"])
def test_a_token_of_the_provider_tells_who_it_is(tmp_path: Path, algorithm: str) -> None:
    provider = Provider(tmp_path / "jwks.json", algorithm)
    token = provider.token(roles=["reader", "indexer", "something-else"])
    assert identify(provider, token) == Identity(
        "app", "north", frozenset({Role.READER, Role.INDEXER})
    )


def test_roles_may_be_words_or_lie_deeper(provider: Provider) -> None:
    assert identify(provider, provider.token(roles="reader admin other"))
    deep = provider.token(realm={"roles": ["admin"]}, roles=None)
    told = authenticator(provider, roles_claim="realm.roles").identify(Credentials(deep))
    assert told is not None
    assert told.roles == {Role.ADMIN}


def signed_with(provider: Provider, header: dict[str, Any], key: Any) -> str:  # noqa: ANN401 - any key
    algorithm = header.get("alg", "RS256")
    return jwt.encode(provider.claims(), key, algorithm=algorithm, headers={"kid": "one"} | header)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(provider: Provider, algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'kid': 'one'})}.{part(provider.claims())}."


def confused(provider: Provider, algorithm: str = "HS256") -> str:
    """Sign with the public key as a shared secret (RFC 8725, 2.1)."""
    secret = provider.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = f"{part({'alg': algorithm, 'kid': 'one', 'typ': 'JWT'})}.{part(provider.claims())}"
    digest = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def own_key_in_header(provider: Provider) -> str:
    """Bring the key that the token is signed by."""
    key = make_key("RS256")
    return signed_with(provider, {"jwk": public_jwk(key, "RS256", "one")}, key)


def altered(provider: Provider) -> str:
    head, _, signature = provider.token().split(".")
    return f"{head}.{part(provider.claims(roles=['admin']))}.{signature}"


ATTACKS: dict[str, Callable[[Provider], str]] = {
    "no algorithm": lambda one: unsigned(one, "none"),
    "no algorithm, oddly written": lambda one: unsigned(one, "NoNe"),
    "no signature": lambda one: unsigned(one, "RS256"),
    "key confusion": confused,
    "key confusion under a public name": lambda one: confused(one, "RS256"),
    "another key": lambda one: signed_with(one, {}, make_key("RS256")),
    "another key under its own name": lambda one: signed_with(
        one, {"kid": "two"}, make_key("RS256")
    ),
    "another algorithm than the key is for": lambda one: signed_with(
        one, {"alg": "RS512"}, one.key
    ),
    "its own key in the header": own_key_in_header,
    "no name of a key": lambda one: jwt.encode(one.claims(), one.key, algorithm="RS256"),
    "altered claims": altered,
    "another audience": lambda one: one.token(aud="other"),
    "no audience": lambda one: one.token(aud=None),
    "another issuer": lambda one: one.token(iss="https://evil.example"),
    "no issuer": lambda one: one.token(iss=None),
    "expired": lambda one: one.token(exp=1_700_000_000),
    "no end": lambda one: one.token(exp=None),
    "not yet": lambda one: one.token(nbf=4_000_000_000),
    "nobody": lambda one: one.token(sub=None),
    "no tenant": lambda one: one.token(tenant=None),
    "a tenant that is a path": lambda one: one.token(tenant="../south"),
    "two tenants": lambda one: one.token(tenant=["north", "south"]),
    "rubbish": lambda one: f"{one.name}.b.c",
    "very long": lambda one: one.token(note="x" * 20_000),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_token_that_proves_nothing_is_refused(provider: Provider, name: str) -> None:
    assert identify(provider, provider.token())
    with pytest.raises(Unauthenticated) as caught:
        identify(provider, ATTACKS[name](provider))
    assert "north" not in str(caught.value)


def test_no_symmetric_algorithm_is_taken() -> None:
    assert not [name for name in ALGORITHMS if name.startswith("HS") or name.lower() == "none"]


def test_roles_of_nobody_are_none(provider: Provider) -> None:
    for roles in (None, 7, {"reader": True}, ["READER", 3]):
        told = identify(provider, provider.token(roles=roles))
        assert told is not None
        assert told.roles == frozenset()


def test_keys_are_rotated_without_a_restart(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "RETRY_S", 0.0)
    known = authenticator(provider)
    old = provider.token()
    assert known.identify(Credentials(old))
    provider.rotate("two")
    assert known.identify(Credentials(provider.token()))
    with pytest.raises(Unauthenticated):
        known.identify(Credentials(old))


def test_unknown_names_do_not_make_us_fetch_all_the_time(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, fetched = Jwks(str(provider.file)), []

    def read() -> bytes:
        fetched.append(1)
        return provider.file.read_bytes()

    monkeypatch.setattr(keys, "_read", read)
    for number in range(50):
        assert keys.key(f"unknown-{number}") is None
    assert len(fetched) == 1


def test_known_keys_hold_while_the_provider_is_away(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "RETRY_S", 0.0)
    monkeypatch.setattr(ours, "FRESH_S", 0.0)
    known = authenticator(provider)
    assert known.identify(Credentials(provider.token()))
    provider.file.write_text("gone")
    assert known.identify(Credentials(provider.token()))


@pytest.mark.parametrize("address", ["http://login.example/keys", "ftp://x/y", "file:///etc/x"])
def test_keys_come_over_tls_or_from_a_file(address: str) -> None:
    with pytest.raises(Misconfigured):
        Jwks(address)
