"""Warnings and metrics before certificates and tokens expire."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry
from support.security import entry, write_tokens

from inferd.server.access.authority import make_authority
from inferd.server.access.certificate_dates import earliest_expiry
from inferd.server.access.expiry import SOON, Expiry
from inferd.server.access.tls import tls_files
from inferd.server.cli.main import main
from inferd.server.config.schema import ServerConfig
from inferd.server.observability.metrics import Metrics

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def certificate(directory: Path, *until: datetime, name: str = "server") -> tuple[Path, Path]:
    """A file with a certificate for each of the moments, and the key of the first."""
    directory.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    pem = b""
    for moment in until:
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(moment)
            .sign(key, hashes.SHA256())
        )
        pem += made.public_bytes(serialization.Encoding.PEM)
    (directory / f"{name}.pem").write_bytes(pem)
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / f"{name}.pem", directory / f"{name}.key"


@pytest.mark.parametrize("year", [2021, 2049, 2050, 2999])
def test_the_first_certificate_of_a_chain_that_expires_is_found(tmp_path: Path, year: int) -> None:
    first = datetime(year, 6, 1, 12, 30, 15, tzinfo=UTC)
    chain, _ = certificate(tmp_path, first + 100 * DAY, first, first + DAY)
    assert earliest_expiry(b"some text\n" + chain.read_bytes()) == first.timestamp()


def test_bytes_that_are_no_certificate_tell_nothing() -> None:
    head, tail = b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n"
    for content in (b"", b"junk", head + b"AAAA" + tail, head + b"MIIB" + tail, head + b"!" + tail):
        assert earliest_expiry(content) is None


def settings(tmp_path: Path) -> dict[str, Any]:
    tokens = {
        "old": entry("o" * 40, ["predict"], expires="2026-12-31"),
        "soon": entry("s" * 40, ["predict"], expires="2027-01-08T00:00:00Z"),
        "later": entry("l" * 40, ["predict"], expires="2028-01-01"),
        "never": entry("n" * 40, ["predict"]),
    }
    chain, key = certificate(tmp_path, NOW + 5 * DAY)
    ca, _ = certificate(tmp_path, NOW + 900 * DAY, name="ca")
    return {
        "auth": {"tokens_file": str(write_tokens(tmp_path / "tokens.yaml", tokens))},
        "server": {"tls": {"certificate": str(chain), "key": str(key), "client_ca": str(ca)}},
    }


@pytest.fixture
def expiry(tmp_path: Path) -> Expiry:
    config = ServerConfig.model_validate(settings(tmp_path))
    files = tls_files(config.server.tls, "server.tls")
    assert files is not None
    return Expiry(make_authority(config.auth), [files], clock=NOW.timestamp)


def test_the_next_moments_are_metrics(expiry: Expiry) -> None:
    registry = CollectorRegistry()
    Metrics(registry, version="1").watch_expiry(expiry.next_expiries, expiry.expired_tokens)

    def value(credential: str) -> float | None:
        name = "inferd_credential_expiry_timestamp_seconds"
        return registry.get_sample_value(name, {"credential": credential})

    assert value("server.tls.certificate") == (NOW + 5 * DAY).timestamp()
    assert value("server.tls.client_ca") == (NOW + 900 * DAY).timestamp()
    assert value("tokens") == (NOW + 7 * DAY).timestamp()
    assert value("http.tls.certificate") is None
    assert registry.get_sample_value("inferd_expired_tokens") == 1


def test_warnings_name_what_expires_and_no_secret(expiry: Expiry) -> None:
    found = list(expiry.warnings())
    assert found == [
        "the token 'old' has expired on 2026-12-31 00:00 UTC",
        "the token 'soon' expires on 2027-01-08 00:00 UTC",
        "the certificate of server.tls.certificate expires on 2027-01-06 00:00 UTC",
    ]
    assert SOON < 90 * 86400 < math.inf


def test_check_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    tokens = write_tokens(tmp_path / "t.yaml", {"old": entry("o" * 40, ["predict"], expires="2020-01-01")})
    arguments = ["check", "--model-repository", str(tmp_path / "models"), "--set", f"auth.tokens_file={tokens}"]
    main(arguments)
    assert "warning: the token 'old' has expired on 2020-01-01 00:00 UTC" in capsys.readouterr().out
    main([*arguments, "--json"])
    assert "\"the token 'old' has expired on 2020-01-01 00:00 UTC\"" in capsys.readouterr().out
