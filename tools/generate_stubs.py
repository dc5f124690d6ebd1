"""Generates Python code from every `.proto` file below proto/ into a directory.

`make proto` writes it in place; the freshness test writes it into an empty directory and compares. The script runs in a
virtual environment of its own with the grpcio-tools that the Makefile pins: the version of the generator determines the
oldest grpcio and protobuf that clients may use.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "proto"
WELL_KNOWN = files("grpc_tools") / "_proto"
# The server offers these services under other names than those of the packages here, so generated stubs would not work.
FOREIGN = ("oip", "tfs")


def generate(out: Path) -> list[Path]:
    """Writes `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` below `out`. Returns the paths of the `.proto` files, relative
    to proto/. Raises SystemExit if a file has errors."""
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
