"""When certificates expire, read from their bytes: Python's `ssl` tells it for authorities and peers only."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from typing import Final

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


def earliest_expiry(pem: bytes) -> float | None:
    """Seconds since the epoch at which the first of the certificates in a PEM file expires; None if there is none that
    can be read."""
    found = [_not_after(ssl.PEM_cert_to_DER_cert(each.decode("ascii", "replace"))) for each in _PEM.findall(pem)]
    return min((each for each in found if each is not None), default=None)


def _not_after(certificate: bytes) -> float | None:
    """Certificate { tbsCertificate { [version], serial, signature, issuer, validity { from, until }, ... } }."""
    try:
        _, whole, _ = _field(certificate)
        _, signed, _ = _field(whole)
        tag, _, rest = _field(signed)
        if tag != _VERSION:  # of version 1, which has no field for it
            rest = signed
        for _ in range(3):  # serial number, signature algorithm, issuer
            _, _, rest = _field(rest)
        tag, validity, _ = _field(rest)
        if tag != _SEQUENCE:
            return None
        _, _, rest = _field(validity)
        tag, text, _ = _field(rest)
        return _moment(tag, text.decode("ascii"))
    except (ValueError, IndexError):
        return None


def _field(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first field, and what follows it."""
    tag, length, start = data[0], data[1], 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise ValueError("cut short")
    return tag, data[start : start + length], data[start + length :]


def _moment(tag: int, text: str) -> float | None:
    if tag == _UTC_TIME:  # two digits of the year: 50 and more are of the last century
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif tag != _TIME:
        return None
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
