"""C2PA: a signed manifest in an edited image that says how it was made (C2PA specification 2, extra `c2pa`).

The manifest holds one action: the image was made here, as a mix of captured pixels and pixels of a trained model.
No ingredient and no thumbnail: both would carry the source's picture and its author's manifest along. The signature
differs each time, so a signed image is never the same twice.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cleanplate.pipeline.errors import ConfigError, RowError
from cleanplate.pipeline.images.formats.table import FORMATS, mark
from cleanplate.pipeline.images.formats.xmp import SOURCE_TYPE

Sign = Callable[[bytes, str], bytes]
"""(file, its format) -> the file with a signed manifest."""

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Marks:
    """What an edited file is to say of its edit. iptc: in its XMP (`formats.xmp`). sign: in a signed manifest, or
    None."""

    iptc: bool
    sign: Sign | None

    def on(self, data: bytes, name: str, note: str | None) -> tuple[bytes, str | None]:
        """The file with what it is to say of its edit, and the note with what it could not."""
        if self.iptc:
            marked = mark(data, name)
            if marked is None:
                why = f"{name} does not say that it was edited: no XMP in it, or none that can be added to"
                note = why if note is None else f"{note}; {why}"
            data = data if marked is None else marked
        if self.sign is not None and not FORMATS[name].signs:
            return data, f"{note}; not signed" if note else f"{name} cannot be signed"
        return (self.sign(data, name) if self.sign else data), note


@lru_cache(maxsize=4)
def signer(cert: str, key: str, version: str) -> Sign:
    """Reads both PEM files and proves the pair on a small picture.

    cert: the signer's certificate first, then what it was issued by. key: its private key, not encrypted.
    version: of cleanplate, for the claim. Raises ConfigError for a missing extra, file, or a pair that cannot sign.
    """
    try:
        import c2pa
    except ImportError as error:
        raise ConfigError("mark: c2pa needs the extra: pip install '.[c2pa]'") from error
    try:
        certs, private = Path(cert).read_bytes(), Path(key).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the signer's file {error.filename}: {error.strerror}") from error
    info = c2pa.C2paSignerInfo(
        alg=_algorithm(key, private), sign_cert=certs, private_key=private, ta_url=None
    )
    context = c2pa.Context(c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}}))
    claim = _claim(version)

    def sign(data: bytes, name: str) -> bytes:
        if not FORMATS[name].signs:
            raise RowError("unsupported", f"{name} holds no C2PA manifest")
        out = io.BytesIO()
        # A signer of its own for each file: rows are written by several threads.
        with c2pa.Signer.from_info(info) as own, c2pa.Builder(claim, context=context) as builder:
            builder.sign(own, f"image/{name}", io.BytesIO(data), out)
        return out.getvalue()

    try:
        sign(_small(), "png")
    except c2pa.C2paError as error:
        raise ConfigError(f"{cert} and {key} cannot sign: {str(error)[:200]}") from error
    return sign


def _algorithm(path: str, private: bytes) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        found = serialization.load_pem_private_key(private, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no private key in PEM without a password") from error
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name in _CURVES:
        return _CURVES[found.curve.name]
    if isinstance(found, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(found, rsa.RSAPrivateKey):
        return "ps256"
    raise ConfigError(f"{path}: C2PA signs with ES256, ES384, ES512, Ed25519 or PS256 keys")


def _claim(version: str) -> dict[str, Any]:
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE.decode()}
    action["description"] = "parts of a photograph removed and filled by a model"
    return {
        "claim_generator_info": [{"name": "cleanplate", "version": version}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


def _small() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "PNG")
    return out.getvalue()
