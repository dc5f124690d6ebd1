"""Checks the description of an exported program (`models/model.json`) before torch reads it.

Torch turns this description into Python code: names become variables and attributes, expressions and guards are
evaluated, operators and types are looked up by name in Python's modules. So every text in it is held to a rule, chosen
by the key that it stands under, and a key that has no rule may hold plain words only. What passes is data: it can call
torch's operators, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from inferd.backends.api import LoadError
from inferd.backends.torch.symbolic_expressions import check_guard, check_size
from inferd.backends.torch.words import words

_DEEPEST: Final = 200  # levels of nesting of the description
_NAME: Final = re.compile(r"[^\W\d]\w{0,499}")
_PATH: Final = re.compile(r"[\w.\- /:+@$%~]{0,1000}")  # of a module, a parameter, a key: ends up within quotes
_WORDS: Final = re.compile(r"[\w.\-+<>=:, ]{0,200}")
_MANY_DIGITS: Final = re.compile(r"[0-9]{7}")
_DEVICE: Final = re.compile(r"[a-z]{1,20}(:[0-9]{1,4})?")

_OPERATOR: Final = re.compile(r"torch\.ops\.([a-zA-Z]\w*)\.([a-zA-Z_]\w*)\.([a-zA-Z]\w*)")
_HIGHER_ORDER: Final = re.compile(r"torch\.ops\.higher_order\.(\w+)")
_NAMESPACES: Final = words("aten prims quantized quantized_decomposed onednn mkldnn mkl sparse torchvision rngprims")
"""Operators that compute on tensors. Those of other namespaces are custom operators."""
_FILE_OPERATORS: Final = frozenset({"from_file", "save", "_print", "warn"})
_HIGHER_ORDER_OPERATORS: Final = words(
    """cond while_loop map map_impl scan associative_scan out_dtype invoke_subgraph strict_mode hints_wrapper
    wrap_with_set_grad_enabled wrap_with_autocast auto_functionalized auto_functionalized_v2 with_effects
    flex_attention tag_activation_checkpoint wrap_activation_checkpoint"""
)
_PYTHON_OPERATORS: Final = words(
    """add sub mul floordiv truediv mod neg pos pow eq ne lt le gt ge and_ or_ not_ xor lshift rshift getitem abs
    invert index"""
)
_MATH: Final = re.compile(r"math\.[a-z0-9]{1,20}")
_TORCH_FUNCTIONS: Final = re.compile(
    r"torch\.(sym_(int|float|not|max|min|ite|sum|fresh_size)|_sym_[a-z0-9]{1,20}|_C\._set_grad_enabled"
    r"|amp\.autocast_mode\._(enter|exit)_autocast"
    r"|_functorch\.predispatch\.(_add_batch_dim|_remove_batch_dim|_vmap_increment_nesting|_vmap_decrement_nesting))"
)
_TREE_TYPES: Final = words(
    """builtins.tuple builtins.list builtins.dict collections.OrderedDict collections.namedtuple collections.deque
    torch.fx.immutable_collections.immutable_list torch.fx.immutable_collections.immutable_dict"""
)


class ContentRules:
    """What one program may hold. `custom`: operators of other namespaces than torch's own, and custom objects, are
    allowed. Stateless: one object may check many programs."""

    def __init__(self, *, custom: bool) -> None:
        self._custom: Final = custom
        self._rules: Final[Mapping[str, Callable[[str], object]]] = {
            "target": self._operator,
            "as_operator": self._operator,
            "expr_str": check_size,
            "guards_code": check_guard,
            "in_spec": _arguments_tree,
            "out_spec": _results_tree,
            "name": _name_or_nothing,
            "as_name": _name,
            "forward_arg_names": _name,
            "field_names": _name,
            "parameter_name": _path,
            "buffer_name": _path,
            "tensor_constant_name": _path,
            "custom_obj_name": _path,
            "user_input_name": _path,
            "fqn": _path,
            "type": _device,
            # Arguments of operators. Python's repr() puts them into code.
            "as_string": _anything,
            "as_strings": _anything,
            # Remarks: torch keeps them as text.
            "stack_trace": _anything,
            "nn_module_stack": _anything,
            "torch_fn": _anything,
            "custom": _anything,
            "from_node": _anything,
            "source_fn_stack": _words_or_separators,
        }

    def check(self, program: Any) -> None:
        """Raises LoadError for a description that could make torch run anything but its operators. `program` is the
        parsed JSON."""
        self._walk(program, "", "the program", _DEEPEST)

    def _walk(self, value: Any, key: str, where: str, depth: int) -> None:
        if depth <= 0:
            raise LoadError(f"{where}: expected at most {_DEEPEST} levels of nesting")
        if isinstance(value, str):
            try:
                self._rules.get(key, _words)(value)
            except ValueError as error:
                raise LoadError(f"{where}: {error}; got {_shown(value)}") from None
        elif isinstance(value, dict):
            if key == "as_custom_obj" and not self._custom:
                raise LoadError(
                    f"{where}: holds a custom object, which is code of a library; "
                    "it is loaded only where repository.allow names custom_ops"
                )
            key_rule = _symbol if key == "range_constraints" else _path
            for name, inner in value.items():
                try:
                    key_rule(name)
                except ValueError as error:
                    raise LoadError(f"{where}: a key: {error}; got {_shown(name)}") from None
                self._walk(inner, name, f"{where}.{name}" if len(where) < 200 else where, depth - 1)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                self._walk(inner, key, f"{where}[{index}]" if len(where) < 200 else where, depth - 1)

    def _operator(self, target: str) -> None:
        if (found := _OPERATOR.fullmatch(target)) is not None:
            namespace, operator, overload = found.groups()
            if "__" in overload or (operator.startswith("__") and not operator.endswith("__")):
                raise ValueError("expected an operator of torch")
            if namespace in _NAMESPACES:
                if operator in _FILE_OPERATORS:
                    raise ValueError("the operator reads, writes or prints outside the model, which is never done")
                return
            if self._custom and namespace != "higher_order":
                return
            raise ValueError(
                f"{namespace!r} is no namespace of torch's own operators; "
                "a custom operator is loaded only where repository.allow names custom_ops"
            )
        if (found := _HIGHER_ORDER.fullmatch(target)) is not None and found[1] in _HIGHER_ORDER_OPERATORS:
            return
        module, _, function = target.partition(".")
        if module == "_operator" and function in _PYTHON_OPERATORS:
            return
        if _MATH.fullmatch(target) or _TORCH_FUNCTIONS.fullmatch(target):
            return
        raise ValueError("expected an operator of torch, such as torch.ops.aten.add.Tensor")


def _name(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ValueError("expected a name of letters, digits and underscores")


def _name_or_nothing(text: str) -> None:
    if text:
        _name(text)


def _path(text: str) -> None:
    if not _PATH.fullmatch(text):
        raise ValueError("expected a path of names, without quotes, brackets and line breaks")


def _words(text: str) -> None:
    if not _WORDS.fullmatch(text):
        raise ValueError("expected a few plain words")


def _words_or_separators(text: str) -> None:
    if not _WORDS.fullmatch(text.replace(";", ",")[:200]) or "__" in text:
        raise ValueError("expected names of functions")


def _symbol(text: str) -> None:
    if not _NAME.fullmatch(text):
        check_size(text)  # older versions of torch write ranges of expressions
    elif _MANY_DIGITS.search(text):
        raise ValueError("expected a symbol with at most six digits: torch counts up to its number")


def _device(text: str) -> None:
    if not _DEVICE.fullmatch(text):
        raise ValueError("expected a device, such as cpu or cuda")


def _anything(_text: str) -> None:
    pass


def _arguments_tree(text: str) -> None:
    """How the arguments are nested: a tuple of positional ones and a dictionary of named ones, whose names become names
    of a Python function's arguments."""
    tree = _results_tree(text)
    if tree["type"] != "builtins.tuple" or len(tree["children_spec"]) != 2:
        raise ValueError("expected a tuple of arguments and a dictionary of named arguments")
    named = tree["children_spec"][1]
    for name in json.loads(named["context"]) if named["type"] == "builtins.dict" else ():
        _name(name)


def _results_tree(text: str) -> dict[str, Any]:
    """How results are nested, as JSON within the JSON: the tree's first node."""
    try:
        protocol, tree = json.loads(text)
        if type(protocol) is not int:
            raise ValueError("expected a number and a tree")
        _tree_node(tree, _DEEPEST)
    except (TypeError, KeyError, RecursionError, json.JSONDecodeError):
        raise ValueError("expected a tree of types in JSON") from None
    return dict(tree)


def _tree_node(node: Any, depth: int) -> None:
    if depth <= 0:
        raise ValueError(f"expected at most {_DEEPEST} levels of nesting")
    if not isinstance(node, dict) or node.keys() != {"type", "context", "children_spec"}:
        raise ValueError("expected nodes of type, context and children_spec")
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if not isinstance(children, list) or (kind is not None and kind not in _TREE_TYPES):
        raise ValueError(f"expected tuples, lists and dictionaries, got {_shown(str(kind))}")
    keys: Any = json.loads(context) if isinstance(context, str) and kind != "collections.namedtuple" else context
    for key in keys if isinstance(keys, list) else [keys]:
        if key is not None and not isinstance(key, (str, int, float)):
            raise ValueError("expected plain keys")
        if isinstance(key, str):
            _path(key)
    for child in children:
        _tree_node(child, depth - 1)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else f"{text[:77]}...")
