"""Generates the stubs of every `.proto` below proto/ into a directory: `make proto` writes them in place, the freshness
test into an empty one.

Runs with the pinned grpcio-tools of the Makefile, in a virtual environment of its own: the version that generates sets
the oldest grpcio and protobuf that clients may have.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "proto"
WELL_KNOWN = files("grpc_tools") / "_proto"
# Served under other names than their packages here have: stubs of ours would call what nobody serves.
FOREIGN = ("oip", "tfs")


def generate(out: Path) -> list[Path]:
    """Writes `*_pb2.py`, `.pyi` and `*_pb2_grpc.py` below `out`. Gives the protos; raises SystemExit on a bad one."""
    protos = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.proto"))
    out.mkdir(parents=True, exist_ok=True)
    options = [f"-I{ROOT}", f"-I{WELL_KNOWN}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(["protoc", *options, *map(str, protos)]) != 0:
        raise SystemExit("protoc failed")
    for proto in protos:
        stub = out / proto.with_name(f"{proto.stem}_pb2_grpc.py")
        if proto.parts[1] in FOREIGN or "service " not in (ROOT / proto).read_text():
            stub.unlink()  # the plugin writes an empty module for a file without services
    return protos


if __name__ == "__main__":
    print(f"{len(generate(Path(sys.argv[1]).resolve()))} protos generated into {sys.argv[1]}")
