"""Health, metadata and ModelConfig."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.backends.api import TensorSpec
from inferd.oip.v1 import control_pb2 as pb
from inferd.oip.v1 import model_config_pb2 as config_pb
from inferd.server.access.caller import Caller
from inferd.server.config.model_schema import Tensor
from inferd.server.errors import ServingError
from inferd.server.lifecycle.interfaces import HandleLike, ManagerLike, ServableLike
from inferd.server.lifecycle.state import ModelStatus, State
from inferd.server.protocols.oip.error_messages import unknown, version_of
from inferd.server.transport.calls import UnaryCall

# By backend: Triton's names of its platform and its backend.
_TRITON_NAMES = {
    "onnx": ("onnxruntime_onnx", "onnxruntime"),
    "torch": ("pytorch_libtorch", "pytorch"),
    "tensorflow": ("tensorflow_savedmodel", "tensorflow"),
    "litert": ("tflite", "tflite"),
    "ensemble": ("ensemble", ""),
}


class MetadataMethods:
    """Answers from the manager. `ready` is the server's readiness; `extensions` are the protocol extensions that the
    server offers. Thread-safe."""

    def __init__(
        self, manager: ManagerLike, ready: Callable[[], bool], server_version: str, extensions: Sequence[str]
    ) -> None:
        self._manager = manager
        self._ready = ready
        self._version = server_version
        self._extensions = tuple(extensions)

    def server_live(self, call: UnaryCall, _request: pb.ServerLiveRequest, _caller: Caller) -> None:
        """ServerLive: true whenever the server answers."""
        call.reply(pb.ServerLiveResponse(live=True).SerializeToString())

    def server_ready(self, call: UnaryCall, _request: pb.ServerReadyRequest, _caller: Caller) -> None:
        """ServerReady: the same readiness as `/readyz` and the health service."""
        call.reply(pb.ServerReadyResponse(ready=self._ready()).SerializeToString())

    def model_ready(self, call: UnaryCall, request: pb.ModelReadyRequest, _caller: Caller) -> None:
        """ModelReady: whether the model can answer requests. An unknown model is not ready, which is no error."""
        try:
            handle = self.acquire(request.name, request.version)
            ready = handle.servable.serves
            handle.release()
        except ServingError:
            ready = False
        call.reply(pb.ModelReadyResponse(ready=ready).SerializeToString())

    def server_metadata(self, call: UnaryCall, _request: pb.ServerMetadataRequest, _caller: Caller) -> None:
        """ServerMetadata: the server's name, version, and the extensions that it offers."""
        answer = pb.ServerMetadataResponse(name="inferd", version=self._version, extensions=self._extensions)
        call.reply(answer.SerializeToString())

    def model_metadata(self, call: UnaryCall, request: pb.ModelMetadataRequest, _caller: Caller) -> None:
        """ModelMetadata: the inputs and outputs of the default signature; shapes include the batch axis."""
        handle = self.acquire(request.name, request.version)
        try:
            servable = handle.servable
            signature = servable.signatures[servable.default_signature]
            numbers = [servable.id.version] if request.version else self._available(servable)
            answer = pb.ModelMetadataResponse(
                name=servable.id.name,
                versions=map(str, sorted(numbers)),
                platform=_TRITON_NAMES.get(servable.backend, (servable.backend,))[0],
                inputs=map(_metadata, signature.inputs),
                outputs=map(_metadata, signature.outputs),
            )
        finally:
            handle.release()
        call.reply(answer.SerializeToString())

    def model_config(self, call: UnaryCall, request: pb.ModelConfigRequest, caller: Caller) -> None:
        """ModelConfig: a configuration that describes the version that is served and is valid as a config.pbtxt. Of an
        ensemble, steps whose model the caller may not see are left out."""
        handle = self.acquire(request.name, request.version)
        try:
            config = model_config(handle.servable, self._manager.status(request.name), caller.grants.covers)
        finally:
            handle.release()
        call.reply(pb.ModelConfigResponse(config=config).SerializeToString())

    def acquire(self, name: str, version: str) -> HandleLike:
        """A handle of the model; `version` as for `version_of`. Raises ServingError, worded as Triton words it."""
        number, label = version_of(version)
        try:
            return self._manager.acquire(name, number, label)
        except ServingError as error:
            raise unknown(error, self._manager, name, version) from None

    def _available(self, servable: ServableLike) -> list[int]:
        versions = self._manager.status(servable.id.name).versions
        return [s.id.version for s in versions if s.state is State.AVAILABLE] or [servable.id.version]


def model_config(
    servable: ServableLike, status: ModelStatus, sees: Callable[[str], bool] = lambda _model: True
) -> config_pb.ModelConfig:
    """The configuration of a loaded version, with the steps whose models the caller `sees`. If every tensor has a batch
    axis, the shapes are written without it; otherwise max_batch_size is 0 and the shapes are complete."""
    signature = servable.signatures[servable.default_signature]
    most = _most_rows(servable)
    batched = most > 0 and all(
        spec.shape is None or spec.shape[:1] == (-1,) for spec in (*signature.inputs, *signature.outputs)
    )
    platform, backend = _TRITON_NAMES.get(servable.backend, ("", servable.backend))
    config = config_pb.ModelConfig(
        name=servable.id.name,
        platform=platform,
        backend=backend,
        version_policy=_policy(status.version_policy),
        max_batch_size=most if batched else 0,
        default_model_filename=(servable.settings.artefact if servable.settings is not None else None) or "",
        instance_group=_groups(next((s.devices for s in status.versions if s.id == servable.id), ())),
    )
    declared = _declared(servable)
    for spec in signature.inputs:
        model_input = config.input.add(
            name=spec.name, data_type=_type(spec), dims=_dims(spec, batched), optional=spec.optional
        )
        _reshape(model_input, declared.get(("input", spec.name)), batched)
    for spec in signature.outputs:
        model_output = config.output.add(name=spec.name, data_type=_type(spec), dims=_dims(spec, batched))
        settings = declared.get(("output", spec.name))
        _reshape(model_output, settings, batched)
        model_output.label_filename = (settings.labels if settings is not None else None) or ""
    if servable.ensemble:
        for step in filter(lambda step: sees(step.model), servable.ensemble):
            config.ensemble_scheduling.step.add(
                model_name=step.model,
                model_version=-1 if step.version is None else step.version,
                input_map=step.inputs,
                output_map=step.outputs,
            )
        del config.instance_group[:]  # an ensemble has no instances
    elif batched and servable.settings is not None and servable.settings.batching.mode == "trusted":
        # In a config.pbtxt it declares that rows are independent. Who loads a model with this very configuration must
        # not declare by that what the server has proven.
        config.dynamic_batching.SetInParent()
    return config


def _most_rows(servable: ServableLike) -> int:
    """The most rows of a batch, 0 without a batch axis. A config.pbtxt with max_batch_size has said where the batch is:
    clients that go by it add that axis, also where the server joins no requests."""
    settings = servable.settings
    if servable.max_batch_size or settings is None or settings.batching.mode == "off" or servable.stateful:
        return servable.max_batch_size
    return settings.batching.max_batch_size if settings.batch_first else 0


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    shape = (-1,) if spec.shape is None else spec.shape
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.dtype.oip_name, shape=shape)


def _type(spec: TensorSpec) -> str:
    return config_pb.DataType.Name(spec.dtype.value)


def _dims(spec: TensorSpec, batched: bool) -> Sequence[int]:
    if spec.shape is None:
        return (-1,)
    return spec.shape[1:] if batched else spec.shape


def _declared(servable: ServableLike) -> dict[tuple[str, str], Tensor]:
    """The settings of the default signature's tensors, by kind ("input", "output") and name."""
    settings = servable.settings
    if settings is None or not settings.signatures or settings.signatures[0].name != servable.default_signature:
        return {}
    first = settings.signatures[0]
    return {(kind, t.name): t for kind, ts in (("input", first.inputs), ("output", first.outputs)) for t in ts}


def _reshape(tensor: config_pb.ModelInput | config_pb.ModelOutput, settings: Tensor | None, batched: bool) -> None:
    if settings is not None and settings.reshape is not None:
        tensor.reshape.SetInParent()  # an empty shape is a valid reshape, and must not be left out
        tensor.reshape.shape.extend(settings.reshape[1:] if batched else settings.reshape)


def _groups(devices: Sequence[str]) -> list[config_pb.ModelInstanceGroup]:
    kinds = config_pb.ModelInstanceGroup.Kind
    groups = []
    for device in dict.fromkeys(devices):
        count = list(devices).count(device)
        if device.startswith("cuda:"):
            gpu = int(device.removeprefix("cuda:"))
            groups.append(config_pb.ModelInstanceGroup(count=count, kind=kinds.KIND_GPU, gpus=[gpu]))
        else:
            groups.append(config_pb.ModelInstanceGroup(count=count, kind=kinds.KIND_CPU))
    return groups


def _policy(described: str) -> config_pb.ModelVersionPolicy:
    # The status has the policy as text: "latest(2)", "all", "specific(3, 5)".
    kind, _, rest = described.partition("(")
    numbers = [int(number) for number in rest.rstrip(")").split(",") if number.strip().isdigit()]
    policy = config_pb.ModelVersionPolicy()
    if kind == "all":
        policy.all.SetInParent()
    elif kind == "specific":
        policy.specific.versions.extend(numbers)
    else:
        policy.latest.num_versions = numbers[0] if numbers else 1
    return policy
