"""Models in Python code (`model.py`) behind a real server: every protocol, and code that misbehaves in every way."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.marked import prepare_model, publish
from support.protocols import PROTOCOLS, Callers
from support.python_models import FAULTY, TEXTS, UPPER, write_model
from support.server import FAST, Served
from support.traffic import Traffic
from support.waiting import eventually

from inferd.client import NO_RETRIES, Client, InferdError, InvalidArgument, ServerFailure, VersionState

pytestmark = pytest.mark.timeout(240)
LIMITS = "worker: {memory: 300MiB}\n"
IMPATIENT = "worker: {hang: 2s}\n"


def texts(*words: str) -> dict[str, np.ndarray]:
    return {"text": np.array([word.encode() for word in words], object)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`upper`, `faulty` and `stuck` in Python, `beside` in ONNX in the server's own process."""
    root = tmp_path_factory.mktemp("python") / "models"
    write_model(root, "upper", UPPER)
    write_model(root, "faulty", FAULTY, TEXTS + LIMITS)
    write_model(root, "stuck", FAULTY, TEXTS + IMPATIENT)
    publish("onnx", prepare_model("onnx", root, "beside"), 1, marker=5)
    sets = (*FAST, f"repository.allow={{{root}: [python]}}")
    with Served(root, sets=sets) as server:
        yield server


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_reaches_it(served: Served, protocol: str) -> None:
    with Callers(served) as callers:
        outcome = callers.send(protocol, "upper", texts("a", "straße"))
        assert outcome.code == "OK", outcome.text
        (upper,) = outcome.outputs.values()
        assert np.reshape(upper, -1).tolist() in ([b"A", b"STRASSE"], ["A", "STRASSE"])
        refused = callers.send(protocol, "upper", texts("a", ""))
        assert refused.refused
        assert "expected a text, got an empty one" in refused.text


def test_it_runs_in_a_process_of_its_own_and_says_so(served: Served) -> None:
    with Client(served.address) as client:
        (version,) = client.status("upper").versions
        assert version.state is VersionState.AVAILABLE
        assert version.backend == "python"
        assert "runs Python code: model.py" in version.notes
        assert worker_of(client, "upper") not in (0, served.pid)
        assert "Python code (model.py) is not analysed; declare batching.mode: trusted" in version.batching
        assert not any("isolation" in note for note in client.status("beside").versions[0].notes)


def worker_of(client: Client, model: str) -> int:
    text = " ".join(note for version in client.status(model).versions for note in version.notes)
    found = re.search(r"isolation: in process (\d+)", text)
    return int(found[1]) if found else 0


FAULTS = {
    "value": (InvalidArgument, "a fault of the caller's"),
    "key": (ServerFailure, "model.py: predict raised KeyError; see the server's log"),
    "leave": (ServerFailure, "model.py: predict raised SystemExit"),
    "deep": (ServerFailure, "model.py: predict raised RecursionError"),
    "nothing": (ServerFailure, "model.py: predict returned no 'upper'"),
    "numbers": (ServerFailure, "expected texts .bytes or str., got int"),
    "rank": (ServerFailure, r"expected shape \[-1\], got \[1, 1\]"),
    "exit": (ServerFailure, "its worker process ended with exit code 3; .* is not declared idempotent"),
    "crash": (ServerFailure, r"was killed by signal 11 \(SIGSEGV\)"),
    "hang": (ServerFailure, "did not answer for 2 s and was killed"),
    "leak": (ServerFailure, "more than the 300 MiB of worker.memory"),
    "flood": (None, ""),
    "children": (None, ""),
    "fork": (None, ""),
    "twin": (None, ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_its_code_does_hurts_only_its_own_requests(served: Served, fault: str) -> None:
    kind, text = FAULTS[fault]
    model = "stuck" if fault == "hang" else "faulty"
    with (
        Client(served.address, retry=NO_RETRIES, timeout=60.0) as client,
        Traffic(served.address, "beside", threads=1) as beside,
    ):
        eventually(lambda: answers(client, model), "it answers")
        if kind is None:
            assert client.predict(model, texts(fault))["upper"].tolist() == [fault.upper().encode()]
        else:
            with pytest.raises(kind, match=text) as failed:
                client.predict(model, texts(fault))
            assert "secret" not in str(failed.value)
            assert "Traceback" not in str(failed.value)
        assert client.predict("upper", texts("x"))["upper"].tolist() == [b"X"]
        beside.more(20)
    assert not beside.seen.failures
    assert not beside.seen.wrong
    with Client(served.address, retry=NO_RETRIES) as client:
        eventually(lambda: answers(client, model), "it answers again")


def answers(client: Client, model: str = "faulty") -> bool:
    try:
        return client.predict(model, texts("fine"))["upper"].tolist() == [b"FINE"]
    except InferdError:
        return False


def test_what_its_code_prints_and_raises_is_in_the_log(served: Served) -> None:
    with Client(served.address, retry=NO_RETRIES) as client:
        eventually(lambda: answers(client), "it answers")
        with pytest.raises(ServerFailure):
            client.predict("faulty", texts("key"))
    eventually(lambda: "a secret of the code" in served.log.read_text(), "the traceback is in the log")
    assert served.log.read_text().count("a line of the flood") < 1000


def test_processes_that_it_has_started_end_with_it(served: Served) -> None:
    with Client(served.address, retry=NO_RETRIES) as client:
        eventually(lambda: answers(client), "it answers")
        client.predict("faulty", texts("children"))
        worker = worker_of(client, "faulty")
        assert group_of(worker) > {worker}
        with pytest.raises(ServerFailure):
            client.predict("faulty", texts("exit"))
        eventually(lambda: not group_of(worker), "the whole group is gone")


def group_of(leader: int) -> set[int]:
    """The processes of a process group that live."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def test_code_that_is_edited_or_replaced_is_loaded_anew(served: Served) -> None:
    root = served.repository
    directory = write_model(root, "reloaded", UPPER)
    with Client(served.address, timeout=60.0) as client:
        client.wait_ready(60.0, model="reloaded")
        edited = directory / "model.py.tmp"
        edited.write_text(UPPER.replace("upper()", "lower()"))
        os.replace(edited, directory / "model.py")
        eventually(lambda: client.predict("reloaded", texts("Ab"))["upper"].tolist() == [b"ab"], "the edited code")
        shutil.copytree(directory, root / "reloaded" / ".2")
        (root / "reloaded" / ".2" / "model.py").write_text("def predict(text):\n    return {'upper': ['two']}\n")
        (root / "reloaded" / ".2").rename(root / "reloaded" / "2")
        eventually(lambda: client.predict("reloaded", texts("a"))["upper"].tolist() == [b"two"], "version 2")
        (root / "reloaded" / ".3").mkdir()
        (root / "reloaded" / ".3" / "model.py").write_text("import nothing_of_this_name\n")
        (root / "reloaded" / ".3").rename(root / "reloaded" / "3")

        def failed() -> str:
            return next((v.error for v in client.status("reloaded").versions if v.version == 3), "")

        error = eventually(failed, "version 3 has failed")
        assert "model.py: there is no module 'nothing_of_this_name' in " in error
        assert client.predict("reloaded", texts("a"))["upper"].tolist() == [b"two"]
