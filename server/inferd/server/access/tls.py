"""Certificate, key and client authorities of one port. They are read again when they change, for new connections."""

from __future__ import annotations

import errno
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inferd.server.access.certificate_dates import earliest_expiry
from inferd.server.access.file_watch import FileWatch
from inferd.server.config.schema import Tls
from inferd.server.observability.events import event, get

_log = get("security")


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """The content of the files, as PEM. Compared by identity. `ca`: None if clients show no certificates."""

    key: bytes
    chain: bytes
    ca: bytes | None


class TlsFiles:
    """The files of one port. `material` is always usable: unusable files leave it as it is. Thread-safe."""

    def __init__(self, config: Tls, where: str) -> None:
        """Reads the files. `where` is the section of the settings, such as server.tls. Raises OSError, which names the
        file and its key."""
        self._config: Final = config
        self._where: Final = where
        self.material, self._context = self._read()

    @property
    def mutual(self) -> bool:
        """Whether clients must show a certificate."""
        return self._config.client_ca is not None

    @property
    def expiries(self) -> dict[str, float]:
        """By key of the settings: seconds since the epoch at which the first certificate in the file, as it is now,
        expires."""
        material = self.material
        found = {"certificate": earliest_expiry(material.chain)}
        if material.ca is not None:
            found["client_ca"] = earliest_expiry(material.ca)
        return {f"{self._where}.{key}": until for key, until in found.items() if until is not None}

    def watch(self, files: FileWatch) -> None:
        """Reads the files again when they change."""
        config = self._config
        paths = [path for path in (config.certificate, config.key, config.client_ca) if path is not None]
        files.follow(self._where, paths, self._reload)

    def server_context(self) -> ssl.SSLContext:
        """A context for asyncio that lasts as long as the server: each connection uses the newest content of the
        files."""
        return _NewestContext(self)

    @property
    def context(self) -> ssl.SSLContext:
        """The newest usable content of the files."""
        return self._context

    def _read(self) -> tuple[Material, ssl.SSLContext]:
        config, where = self._config, self._where
        material = Material(
            _pem(config.key, f"{where}.key", b"PRIVATE KEY-----"),
            _pem(config.certificate, f"{where}.certificate", b"-----BEGIN CERTIFICATE"),
            None if config.client_ca is None else _pem(config.client_ca, f"{where}.client_ca", b"-----BEGIN CERT"),
        )
        return material, self._new_context()

    def _new_context(self) -> ssl.SSLContext:
        # Tried here for gRPC's ports, too: for unusable files gRPC's core says only that it could not bind.
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(config.certificate, config.key)
            if config.client_ca is not None:
                context.load_verify_locations(config.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except ssl.SSLError as error:
            reason = (error.reason or str(error)).replace("_", " ").lower()
            raise OSError(errno.EINVAL, f"{self._where}: {reason}: {config.certificate}") from None
        return context

    def _reload(self) -> None:
        self.material, self._context = self._read()
        event(_log, logging.INFO, "certificates read again", where=self._where, file=self._config.certificate)


class _NewestContext(ssl.SSLContext):
    """Makes connections with the newest context. A TLS session of an earlier context cannot be resumed: the client's
    certificate would not be verified again."""

    def __new__(cls, _files: TlsFiles) -> _NewestContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, files: TlsFiles) -> None:
        self._files = files

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self._files.context.wrap_bio(*args, **kwargs)


def tls_files(config: Tls | None, where: str) -> TlsFiles | None:
    """The files of a port; None for a port without TLS. Raises OSError."""
    return None if config is None else TlsFiles(config, where)


def _pem(path: str, key: str, mark: bytes) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise OSError(error.errno, f"{key}: cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if mark not in content:
        raise OSError(errno.EINVAL, f"{key}: expected PEM with {mark.decode().strip('-')!r} in {path}, found none")
    return content
