import io
import json
import logging
import threading

import pytest

from inferd.server.config.schema import Log
from inferd.server.observability import logs
from inferd.server.observability.events import event, get
from inferd.server.observability.rate_limit import RateLimit


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def written(settings, act):
    out = io.StringIO()
    with logs.start(settings, out):
        act(get("rpc"))
    return out.getvalue()


def test_every_event_is_one_line_of_json():
    def act(log):
        event(log, logging.INFO, "version available", model="digits", version=2, seconds=0.25, code=None)
        log.warning("plain %s", "words")

    first, second = map(json.loads, written(Log(format="json"), act).splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info", "logger": "inferd.rpc", "event": "version available",
        "model": "digits", "version": 2, "seconds": 0.25,
    }  # fmt: skip
    assert (second["level"], second["event"]) == ("warning", "plain words")


def test_text_lines_quote_values_that_are_not_plain():
    text = written(
        Log(),
        lambda log: event(log, logging.ERROR, "refused it", code="X", peer="ipv4:1.2.3.4:5", text="a b", n=1),
    )
    assert text.split(" ", 1)[1] == 'error inferd.rpc "refused it" code=X peer=ipv4:1.2.3.4:5 text="a b" n=1\n'


@pytest.mark.parametrize("form", ["text", "json"])
def test_text_from_clients_cannot_start_a_line_or_control_a_terminal(form):
    evil = "x\n2026 info forged\r\x1b[31m\u202e\u2028\ud800"
    text = written(Log(format=form), lambda log: event(log, logging.INFO, evil, request_id=evil, nested={"a": [evil]}))
    assert len(text.splitlines()) == 1
    assert text.isascii()
    assert "\x1b" not in text


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_logged_on_one_line_if_an_error_is_given(form):
    def act(log):
        try:
            raise ValueError("inner")
        except ValueError as error:
            event(log, logging.ERROR, "boom", error=error)
            event(log, logging.ERROR, "quiet")

    with_it, without = written(Log(format=form), act).splitlines()
    assert "Traceback" in with_it
    assert "ValueError: inner" in with_it
    assert "Traceback" not in without


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_hidden(form):
    def act(log):
        event(
            log,
            logging.INFO,
            "e",
            api_key="hunter2",
            options={"password": "hunter2"},
            url="http://u:hunter2@h/",
            authorization="hunter2",
        )

    text = written(Log(format=form), act)
    assert "hunter2" not in text
    assert text.count("<hidden>") == 4


def test_any_field_gives_valid_json():
    loop = []
    loop.append(loop)
    fields = {
        "nan": float("nan"),
        "inner": [float("inf")],
        "keys": {1: {2: 3}, (1, 2): 3},
        "bytes": b"\xff",
        "time": "mine",
        "level": 3,
        "huge": "x" * 100_000,
        "loop": loop,
    }

    def act(log):
        event(log, logging.INFO, "e", **fields)

    line = written(Log(format="json"), act)
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (found["event"], found["time_"], found["level"]) == ("e", "mine", "info")
    assert len(line) < 30_000


def test_events_below_the_level_are_not_written():
    def act(log):
        for level in ("debug", "info", "warning", "error"):
            getattr(log, level)(level)

    assert len(written(Log(level="warning"), act).splitlines()) == 2
    assert len(written(Log(level="debug"), act).splitlines()) == 4


def test_closing_restores_the_logger():
    root, logger = logging.getLogger(), logging.getLogger("inferd")
    before = (list(root.handlers), root.level, list(logger.handlers), logger.level, logger.propagate)
    opened = logs.start(Log(), io.StringIO())
    assert (list(root.handlers), root.level) == before[:2]
    opened.close()
    opened.close()
    assert (list(root.handlers), root.level, list(logger.handlers), logger.level, logger.propagate) == before
    assert "inferd-logs" not in {thread.name for thread in threading.enumerate()}


def test_a_file_rotates_and_keeps_the_configured_backups(tmp_path):
    path = tmp_path / "inferd.log"
    with logs.start(Log(format="json", file=str(path), max_size=2000, backups=2)):
        for number in range(200):
            event(get(), logging.INFO, "event", number=number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["inferd.log", "inferd.log.1", "inferd.log.2"]
    assert all(file.stat().st_size <= 2000 for file in files)
    numbers = [json.loads(line)["number"] for file in reversed(files) for line in file.read_text().splitlines()]
    assert numbers == list(range(numbers[0], 200))


def test_an_unusable_log_file_is_an_error_at_start(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        logs.start(Log(file=str(tmp_path / "none" / "x.log")))


class Stuck(logging.Handler):
    """Blocks until `free` is set, like a pipe that is not read."""

    def __init__(self):
        super().__init__()
        self.entered = threading.Event()
        self.free = threading.Event()
        self.seen = []

    def emit(self, record):
        self.entered.set()
        self.free.wait()
        self.seen.append(record.getMessage())


def test_a_blocked_output_blocks_no_caller_and_lost_lines_are_counted():
    place = Stuck()
    opened = logs.Logs(place, logging.INFO, waiting=5)
    log = get("x")
    log.info("first")
    assert place.entered.wait(10)
    for number in range(20):
        log.info("line %d", number)
    assert opened.lost == 15
    place.free.set()
    opened.close()
    assert place.seen == ["first", *(f"line {number}" for number in range(5))]


def test_lines_of_several_threads_are_not_mixed():
    def act(log):
        def work(name):
            for number in range(100):
                event(log, logging.INFO, "e", name=name, number=number)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = [json.loads(line) for line in written(Log(format="json"), act).splitlines()]
    assert {(each["name"], each["number"]) for each in found} == {(a, b) for a in range(8) for b in range(100)}


def test_arguments_are_formatted_when_the_event_is_logged():
    def act(log):
        changing = ["before"]
        log.info("%s", changing)
        changing[0] = "after"

    assert "before" in written(Log(), act)


def test_a_wrong_format_string_does_not_raise(capsys):
    assert written(Log(), lambda log: (log.info("%d", "x"), log.info("next"))).count("\n") == 1
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_rate_limit_allows_a_burst_then_a_few_each_second():
    clock = Clock()
    limit = RateLimit(2.0, 3, clock=clock)
    assert [limit.take("a") for _ in range(5)] == [0, 0, 0, None, None]
    assert limit.take("b") == 0
    clock.now += 0.4
    assert limit.take("a") is None
    clock.now += 0.1
    assert limit.take("a") == 3
    clock.now += 1000
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, None]


def test_the_number_of_a_rate_limits_keys_is_bounded():
    limit = RateLimit(1.0, 1, clock=Clock())
    for number in range(5000):
        limit.take(number)
    assert limit.take(4999) is None
    assert limit.take(0) == 0  # its bucket was dropped
    assert len(limit._buckets) <= 1024


def test_a_limited_event_reports_how_many_were_skipped():
    clock = Clock()
    limit = RateLimit(1.0, 1, clock=clock)

    def act(log):
        for _ in range(4):
            limit.event(log, logging.WARNING, "request failed", key="m", model="m")
        limit.event(log, logging.DEBUG, "request failed", key="m")
        limit.event(log, logging.WARNING, "request failed", key="n", model="n")
        clock.now += 1
        limit.event(log, logging.WARNING, "request failed", key="m", model="m")

    found = [json.loads(line) for line in written(Log(format="json"), act).splitlines()]
    assert [(each["model"], each.get("suppressed")) for each in found] == [("m", None), ("n", None), ("m", 3)]


@pytest.mark.parametrize("bad", [(0, 1), (-1, 1), (1, 0)])
def test_an_invalid_rate_is_refused(bad):
    with pytest.raises(ValueError, match="expected a rate above 0"):
        RateLimit(*bad)
