"""An identity provider that any test can be."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://login.example", "dafh"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def make_key(algorithm: str) -> PrivateKey:
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key({"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}[algorithm])


def public_jwk(key: PrivateKey, algorithm: str, name: str) -> dict[str, Any]:
    public: Any = key.public_key()
    kinds: dict[type, Any] = {
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }
    kind = next(kinds[one] for one in kinds if isinstance(key, one))
    found: dict[str, Any] = json.loads(kind.to_jwk(public))
    return found | {"kid": name, "alg": algorithm, "use": "sig"}


@dataclass
class Provider:
    """Signs tokens, and publishes its keys in a file."""

    file: Path
    algorithm: str = "RS256"
    name: str = "one"
    key: PrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.rotate(self.name)

    def rotate(self, name: str) -> None:
        """Sign with a new key from now on."""
        self.name, self.key = name, make_key(self.algorithm)
        jwk = public_jwk(self.key, self.algorithm, name)
        self.file.write_text(json.dumps({"keys": [jwk]}))

    def claims(self, **other: Any) -> dict[str, Any]:  # noqa: ANN401 - any claim
        now = int(time.time())
        standard = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "app", "iat": now, "exp": now + 300,
            "tenant": "north", "roles": ["reader"],
        }  # fmt: skip
        return {name: value for name, value in (standard | other).items() if value is not None}

    def token(self, **other: Any) -> str:  # noqa: ANN401 - any claim
        return jwt.encode(
            self.claims(**other), self.key, algorithm=self.algorithm, headers={"kid": self.name}
        )
