"""`make languages`: runs the clients of examples/clients. Fails if a tool is missing.

Needs npm with a package index, and these packages of Debian 12, whose versions are used so that nothing is fetched from
Go's and Maven's own indexes:

    golang-go golang-google-grpc-dev golang-goprotobuf-dev protoc-gen-go-1-3 protoc-gen-go-grpc protobuf-compiler
    default-jdk-headless libgrpc-java libnetty-java libgeronimo-annotation-1.3-spec-java
    protobuf-compiler-grpc-java-plugin
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from support.server import Served

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "clients"
PROTOS = [f"inferd/v1/{name}.proto" for name in ("tensor", "predict_service", "model_service")]
DEBIAN_GO = "/usr/share/gocode"
DEBIAN_JAVA = Path("/usr/share/java")
JARS = re.compile(r"(grpc-|protobuf|guava|failureaccess|perfmark|netty|opencensus|gson|geronimo-annotation)")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Runs a command and returns what it prints. Ends the program with its errors if it fails."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def go(work: Path, address: str) -> str:
    """The Go client, built with Debian's libraries. Their grpc uses the first API of Go's protobuf, whose generator
    does not know optional fields: so without model_service.proto."""
    source = work / "src" / "example.com" / "digits"
    shutil.copytree(EXAMPLES / "go", source)
    run("protoc", "-I", ROOT / "proto", f"--go_out={source}", f"--go-grpc_out={source}", *PROTOS[:2], cwd=work)
    env = {"GO111MODULE": "off", "GOPATH": f"{work}:{DEBIAN_GO}", "GOCACHE": str(work / "cache"), "GOFLAGS": ""}
    return run("go", "run", ".", address, cwd=source, env=env)


def java(work: Path, address: str) -> str:
    """The Java client, built with Debian's libraries."""
    source, classes = work / "java", work / "classes"
    shutil.copytree(EXAMPLES / "java" / "src" / "main" / "java", source)
    plugin = "--plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin"
    run("protoc", "-I", ROOT / "proto", f"--java_out={source}", plugin, f"--grpc-java_out={source}", *PROTOS, cwd=work)
    path = ":".join(str(jar) for jar in sorted(DEBIAN_JAVA.glob("*.jar")) if JARS.match(jar.name))
    run("javac", "-nowarn", "-cp", path, "-d", classes, *sorted(source.rglob("*.java")), cwd=work)
    return run("java", "-cp", f"{classes}:{path}", "example.Digits", address, cwd=work)


def node(work: Path, address: str) -> str:
    """The Node.js client, with the packages that its package.json names."""
    source = work / "node"
    shutil.copytree(EXAMPLES / "node", source, ignore=shutil.ignore_patterns("node_modules"))
    run("npm", "install", "--silent", "--no-audit", "--no-fund", cwd=source)
    return run("node", "digits.js", address, cwd=source, env={"PROTO": str(ROOT / "proto")})


LANGUAGES: dict[str, Callable[[Path, str], str]] = {"go": go, "java": java, "node": node}


def main(names: list[str]) -> int:
    """Runs the clients of these languages; of all without names. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="inferd-languages-") as folder:
        models = Path(folder) / "models"
        shutil.copytree(ROOT / "model_repository" / "digits_onnx", models / "digits_onnx")
        with Served(models) as server:
            for name in names or LANGUAGES:
                work = Path(folder) / name
                work.mkdir()
                said = LANGUAGES[name](work, server.address).strip()
                print(f"{name}: {said}")
                if not re.fullmatch(r"digit \d from version 2", said):
                    raise SystemExit(f"{name}: expected 'digit D from version 2'")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
