"""TraceSetting and LogSettings: clients can read the settings. Changing them while the server runs is refused."""

from __future__ import annotations

from inferd.oip.v1 import control_pb2 as pb
from inferd.server.access.caller import Caller
from inferd.server.config.schema import Log
from inferd.server.errors import InvalidRequest, NotFound, Unsupported
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.transport.calls import UnaryCall

NO_TRACE = "traces are not kept: figures are in ModelStatistics and /metrics, failures in the log"
NO_CHANGE = "log settings are read at start (log.level, log.file): they cannot be changed while the server runs"
_LEVELS = ("error", "warning", "info", "debug")


class SettingsMethods:
    """Answers from the configuration. Thread-safe."""

    def __init__(self, log: Log, manager: ManagerLike) -> None:
        self._log = log
        self._manager = manager

    def trace(self, call: UnaryCall, request: pb.TraceSettingRequest, _caller: Caller) -> None:
        """TraceSetting. Triton's traces are always off: only "trace_level: OFF" is accepted."""
        if request.model_name:
            try:
                self._manager.status(request.model_name)
            except NotFound as error:
                raise InvalidRequest(error.message) from None
        if any(key != "trace_level" or list(given.value) != ["OFF"] for key, given in request.settings.items()):
            raise Unsupported(NO_TRACE)
        answer = pb.TraceSettingResponse()
        answer.settings["trace_level"].value.append("OFF")
        call.reply(answer.SerializeToString())

    def log(self, call: UnaryCall, request: pb.LogSettingsRequest, _caller: Caller) -> None:
        """LogSettings: the levels that are logged, and the log file."""
        if request.settings:
            raise Unsupported(NO_CHANGE)
        level = _LEVELS.index(self._log.level)
        answer = pb.LogSettingsResponse()
        answer.settings["log_file"].string_param = self._log.file or ""
        answer.settings["log_error"].bool_param = True
        answer.settings["log_warning"].bool_param = level >= _LEVELS.index("warning")
        answer.settings["log_info"].bool_param = level >= _LEVELS.index("info")
        answer.settings["log_verbose_level"].uint32_param = int(self._log.level == "debug")
        answer.settings["log_format"].string_param = "ISO8601"
        call.reply(answer.SerializeToString())
