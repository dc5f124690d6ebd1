"""An executable torch model of any format: named arrays become arguments, one call in inference mode, named arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from inferd.backends.api import Array, BackendError, BrokenContract, LoadError, Placement
from inferd.backends.checks import SignatureTable
from inferd.backends.torch.errors import reason, translated
from inferd.backends.torch.io import Plan, array_maker, dtype_from_torch, tensor_maker
from inferd.backends.torch.options import TorchOptions
from inferd.backends.torch.structure import Missing, Output, text_of, value_at
from inferd.wire.dtypes import DType

_PLAIN = TorchOptions()


class TorchInstance:
    """One executable copy. Thread-safe if the functions are.

    CPU threads: torch keeps their number per calling thread (OpenMP), so each run sets it for its own thread. Where
    torch is built with its own thread pool (macOS), the number holds for the whole process and the last run decides.
    """

    def __init__(
        self,
        torch: Any,
        placement: Placement,
        checks: SignatureTable,
        plans: Mapping[str, Plan],
        functions: Mapping[str, Callable[..., Any]],
        *,
        owned: Collection[int] = (),
        copy_all: bool = False,
        options: TorchOptions = _PLAIN,
    ) -> None:
        """
        plans       how each signature calls its function, by signature name
        functions   what is called, by signature name
        owned       addresses of the model's own tensor storages. Outputs in these storages are copied, so that no
                    caller can change the model and no later run can change an answer
        copy_all    copy every output: for models whose storages are not all known
        """
        self._torch = torch
        self._device = placement.device
        self._threads = placement.threads
        self._checks = checks
        self._plans = plans
        self._functions = {name: options.call(torch, fn, placement.device) for name, fn in functions.items()}
        self._narrow = (torch.bfloat16, torch.float16) if options.autocast else ()
        self._owned = frozenset(owned)
        self._copy_all = copy_all
        self._tensor = options.argument(torch, tensor_maker(torch, placement.device))
        self._array = array_maker(torch)
        self._dtypes = {
            (name, output.name): output.dtype.numpy
            for name, plan in plans.items()
            for output in plan.outputs + plan.aliases
            if output.dtype is not None
        }
        self._on_cpu = placement.device == "cpu"

    @property
    def threads(self) -> int:
        """The number of CPU threads of a run on the calling thread."""
        self._use_threads()
        return int(self._torch.get_num_threads())

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        self._checks[signature].inputs(inputs)
        return self._compute(signature, inputs, outputs)

    def _compute(self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str] | None) -> dict[str, Array]:
        wanted = self._checks[signature].wanted(outputs)
        function = self._functions.get(signature)
        if function is None:
            raise BackendError("the instance is closed")
        plan = self._plans[signature]
        self._use_threads()
        with self._torch.inference_mode():
            arguments = [make(inputs, self._tensor) for make in plan.arguments]
            keywords: Mapping[str, Any] = {name: make(inputs, self._tensor) for name, make in plan.keywords}
            positional: Sequence[Any] = arguments
            try:
                if plan.arrange is not None:
                    positional, keywords = plan.arrange(arguments)
                result = function(*positional, **keywords)
                borrowed = self._borrowed((*arguments, *keywords.values())) if self._on_cpu else _never
                places = plan.outputs + plan.aliases
                return {o.name: self._output(signature, result, o, borrowed) for o in places if o.name in wanted}
            except BackendError:
                raise
            except Exception as error:
                raise self._translated(error, signature, inputs) from None

    def _translated(self, error: Exception, signature: str, inputs: Mapping[str, Any]) -> BackendError:
        sizes_open = self._checks[signature].leaves_sizes_open(inputs)
        return translated(error, self._device, sizes_open=sizes_open)

    def close(self) -> None:
        self._functions = {}

    def _use_threads(self) -> None:
        # The number is read before it is set: the first read on a thread makes torch initialise it, which would undo an
        # earlier setting.
        if self._torch.get_num_threads() != self._threads:
            self._torch.set_num_threads(self._threads)

    def _borrowed(self, arguments: Sequence[Any]) -> Callable[[int], bool]:
        """A function that says whether the storage at an address belongs to the arguments or to the model."""
        if self._copy_all:
            return _always
        held: set[int] = set()
        _collect_storages(self._torch, arguments, held)
        owned = self._owned
        return lambda address: address in held or address in owned

    def _output(self, signature: str, result: Any, output: Output, borrowed: Callable[[int], bool]) -> Array:
        try:
            value = value_at(result, output.path)
        except Missing as error:
            at = text_of(output.path)
            place = "" if at == output.name else f" (at {at})"
            raise BrokenContract(f"the model gave no output {output.name!r}{place}; it gave {error}") from None
        if self._narrow and getattr(value, "dtype", None) in self._narrow and output.dtype in (None, DType.FP32):
            value = value.float()  # autocast changes how outputs are computed, not their element type
        array = self._array(value, output.name, borrowed)
        if output.dtype is not None and array.dtype != self._dtypes[signature, output.name]:
            raise BrokenContract(
                f"output {output.name!r} is declared as {output.dtype.name}, but the model gives {array.dtype}"
            )
        return array


def use_device(torch: Any, device: str) -> None:
    """Raises LoadError if torch does not have this device or cannot compute on it."""
    if device == "cpu":
        return
    device_type, _, number = device.partition(":")
    if device_type != "cuda" or not number.isdigit():
        raise LoadError(f"unknown device {device!r}; torch models run on cpu or cuda:N")
    if not torch.cuda.is_available():
        built = "is built for the CPU only" if torch.version.cuda is None else "sees no CUDA device"
        raise LoadError(f"the model is placed on {device}, but this torch ({torch.__version__}) {built}")
    if int(number) >= torch.cuda.device_count():
        raise LoadError(f"the model is placed on {device}, but there are {torch.cuda.device_count()} CUDA devices")
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        raise LoadError(f"{device} cannot compute: {reason(error)[1]}") from None


def verify_device(device: str, tensors: Sequence[Any]) -> None:
    """Raises LoadError if any of a model's tensors is on another device."""
    elsewhere = sorted({str(t.device) for t in tensors} - {device})
    if elsewhere:
        raise LoadError(f"the model is placed on {device}, but part of it stays on {', '.join(elsewhere)}")


def dtype_text(torch_dtype: Any) -> str:
    """A torch.dtype as error messages show it."""
    found = dtype_from_torch(torch_dtype)
    return str(torch_dtype) if found is None else found.name


def _collect_storages(torch: Any, values: Any, into: set[int]) -> None:
    for value in values:
        if isinstance(value, torch.Tensor):
            into.add(value.untyped_storage().data_ptr())
        elif isinstance(value, dict):
            _collect_storages(torch, value.values(), into)
        elif isinstance(value, list | tuple):
            _collect_storages(torch, value, into)


def _always(address: int) -> bool:
    return True


def _never(address: int) -> bool:
    return False
