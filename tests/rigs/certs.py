"""A certificate authority of the test's own, and a signer that it vouches for."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_USES += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")


def write_signer(folder: Path) -> tuple[str, str]:
    """cert.pem (signer, then root) and key.pem (P-256) in the folder, of the form that C2PA asks for."""
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    certs = [_certificate("signer", leaf, "root", root), _certificate("root", root, "root", root)]
    pem = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certs)
    key = leaf.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(key)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, signed_by: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    is_root, start = subject == issuer, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    uses = ("key_cert_sign", "crl_sign") if is_root else ("digital_signature",)
    result = (
        x509.CertificateBuilder(_name(issuer), _name(subject), key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(is_root, None), True)
        .add_extension(x509.KeyUsage(**{use: use in uses for use in _USES}), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by.public_key()), False)
    )
    if not is_root:
        result = result.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    return result.sign(signed_by, hashes.SHA256())


def _name(common: str) -> x509.Name:
    rows = ((NameOID.ORGANIZATION_NAME, "cleanplate's tests"), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in rows])
