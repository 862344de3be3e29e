"""Ed25519 signatures (RFC 8032) of versions: a private key that signs, and the public keys that are trusted.

Both lie in one folder outside the registry: whoever can write the registry alone cannot make a version of their own.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fracture_det.registry.errors import RegistryError
from fracture_det.structures.strict_json import convert_json, parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PRIVATE_FILE, PUBLIC_SUFFIX, SIGNATURE_FILE = "private.pem", ".pub", "version.sig"
FINGERPRINT_DIGITS = 16


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a version.sig. key: fingerprint of the public key. signature: 64 bytes in base64."""

    key: str
    signature: str


def generate_key(folder: Path) -> Path:
    """Write a new private key, and its public key as FINGERPRINT.pub; return the latter's path.

    Public keys of before stay, and trusted. Raises RegistryError where there is a private key already.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path = folder / PRIVATE_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise RegistryError(
            f"{path}: there is a key already; move it away to make another. What it signed stays trusted while its "
            f"{PUBLIC_SUFFIX} file is there"
        ) from None
    with os.fdopen(number, "wb") as file:
        file.write(private)
        os.fsync(file.fileno())
    target = folder / f"{fingerprint(key.public_key())}{PUBLIC_SUFFIX}"
    target.write_bytes(public)
    return target


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the first 16 digits of the SHA-256 of a public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:FINGERPRINT_DIGITS]


def read_private_key(folder: Path) -> Ed25519PrivateKey:
    """Return the key that signs. Raises RegistryError where there is none, or it is of another kind."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = folder / PRIVATE_FILE
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise RegistryError(f"{path}: there is no key to sign with; `fracture-det models keygen` makes one") from None
    except (OSError, ValueError, TypeError) as error:
        raise RegistryError(f"{path}: cannot be read as a private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RegistryError(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
    return key


def trusted_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Return every public key in a folder by its fingerprint. Raises RegistryError for a broken one, or without any."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = {}
    for path in sorted(folder.glob(f"*{PUBLIC_SUFFIX}")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise RegistryError(f"{path}: cannot be read as a public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise RegistryError(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
        found[fingerprint(key)] = key
    if not found:
        raise RegistryError(
            f"{folder}: there is no public key (*{PUBLIC_SUFFIX}) to verify versions by; "
            "`fracture-det models keygen` makes one, --keys or FRACTURE_MODELS_KEYS names another folder"
        )
    return found


def sign(content: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the content of a version.sig."""
    return _encoded(fingerprint(key.public_key()), key.sign(content))


def _encoded(key: str, signature: bytes) -> bytes:
    return msgspec.json.encode(Signature(key, base64.b64encode(signature).decode())) + b"\n"


def check_signature(content: bytes, path: Path, keys: Path) -> str:
    """Return the fingerprint of the key that signed `content`, by the version.sig at `path`.

    keys: folder of the trusted keys. Raises RegistryError for a missing, broken or wrong signature, or another's.
    """
    from cryptography.exceptions import InvalidSignature

    trusted = trusted_keys(keys)
    try:
        written = path.read_bytes()
        said = convert_json(parse_json(written), Signature)
        signature = base64.b64decode(said.signature, validate=True)
        if written != _encoded(said.key, signature):  # JSON and base64 have many spellings of one content
            raise ValueError("it is not as it was written")
    except FileNotFoundError:
        raise RegistryError(f"{path.parent}: is not signed: there is no {path.name}") from None
    except (OSError, ValueError) as error:
        raise RegistryError(f"{path}: cannot be read: {error}") from error
    if said.key not in trusted:
        raise RegistryError(
            f"{path}: signed by the key {said.key}, which is not trusted; {keys} has {', '.join(trusted)}"
        )
    try:
        trusted[said.key].verify(signature, content)
    except InvalidSignature:
        raise RegistryError(
            f"{path.parent}: version.json does not fit version.sig: the signature by {said.key} is wrong; one of them "
            "was changed or damaged"
        ) from None
    return said.key
