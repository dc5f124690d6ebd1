"""The rules for the names in a torch archive, so that every reader finds the same entry under a name.

Torch's own reader finds an entry whatever the case of its letters, takes the first of two entries, and drops the top
folder. Python's `zipfile` compares exactly and takes the last one. An archive in which the two could differ is refused;
torch never writes one.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

from inferd.backends.api import LoadError

_LONGEST_NAME = 1024
_MOST_ENTRIES = 400_000
_LARGEST_PACKED = 256 * 2**20  # bytes that compressed entries may have together once they are inflated
_LARGEST_DIRECTORY = 16 * 2**20  # bytes: a hundred thousand entries take ten MB at most. These take two seconds to read
_LONGEST_END = 2**16 + 200  # bytes after the directory: a comment, and the records of sizes
_ENCRYPTED = 0x1


def check_entries(file: str, entries: Iterable[zipfile.ZipInfo]) -> None:
    """Raises LoadError unless every name means one entry to every reader, and no entry is encrypted, compressed by an
    unusual method or larger than its bound once it is inflated."""
    infos = list(entries)
    check_names(file, [info.orig_filename for info in infos])
    packed = 0
    for info in infos:
        if info.flag_bits & _ENCRYPTED:
            raise LoadError(f"{file}: entry {_shown(info.filename)} is encrypted")
        if info.compress_type == zipfile.ZIP_DEFLATED:
            packed += info.file_size
        elif info.compress_type != zipfile.ZIP_STORED:
            raise LoadError(
                f"{file}: entry {_shown(info.filename)} is compressed by method {info.compress_type}; "
                "expected entries that are stored or deflated"
            )
    if packed > _LARGEST_PACKED:
        raise LoadError(
            f"{file}: its compressed entries take {packed} bytes when they are inflated; expected at most "
            f"{_LARGEST_PACKED} (weights are stored, not compressed)"
        )


def check_directory(name: str, file: BinaryIO) -> None:
    """Raises LoadError for an archive whose directory is larger than those that torch writes: `zipfile` reads all of it
    before anything can be asked, entry by entry. `file` is at any position."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_END))
    end = file.read()
    at = end.rfind(b"PK\5\6")
    if at < 0 or at + 16 > len(end):
        return  # `zipfile` says so
    (directory,) = struct.unpack_from("<I", end, at + 12)
    if directory == 0xFFFFFFFF:  # then the record before has the size in 64 bits
        at = end.rfind(b"PK\6\6", 0, at)
        directory = struct.unpack_from("<Q", end, at + 40)[0] if 0 <= at <= len(end) - 48 else 0
    if directory > _LARGEST_DIRECTORY:
        raise LoadError(
            f"{name}: the directory of the archive takes {directory} bytes; expected at most {_LARGEST_DIRECTORY}"
        )


def check_names(file: str, names: list[str]) -> None:
    """Raises LoadError for names of entries that two readers could understand differently."""
    if len(names) > _MOST_ENTRIES:
        raise LoadError(f"{file} has {len(names)} entries; expected at most {_MOST_ENTRIES}")
    seen: dict[str, str] = {}
    for name in names:
        _check_name(file, name)
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            what = "twice" if other == name else f"beside {_shown(other)}, which differs in case only"
            raise LoadError(f"{file} has an entry {_shown(name)} {what}; expected each name once")
    tops = sorted({name.partition("/")[0] for name in names if "/" in name})
    if len(tops) > 1 and not any("/" not in name for name in names):
        raise LoadError(f"{file}: expected one top folder, got {', '.join(map(_shown, tops[:4]))}")


def _check_name(file: str, name: str) -> None:
    parts = name.removesuffix("/").split("/")
    if (
        len(name) > _LONGEST_NAME
        or not name.isprintable()
        or "\\" in name
        or any(part in ("", ".", "..") for part in parts)
        or (len(name) > 1 and name[1] == ":")
    ):
        raise LoadError(f"{file} has an entry {_shown(name)}; expected a relative path of plain parts")


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else f"{name[:77]}...")
