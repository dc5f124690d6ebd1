"""The texts of an exported program that torch hands to Python's `eval` or `exec`, held to arithmetic.

    check_size     the size of a dimension or the value of a symbol (`expr_str`): torch gives it to sympy, which
                   evaluates it as Python
    check_guard    a condition on the inputs (`guards_code`), which torch compiles as Python

Both raise ValueError with the reason. Neither evaluates anything.
"""

from __future__ import annotations

import ast
import re

from inferd.backends.torch.words import words

_LONGEST = 20_000
_DEEPEST = 100  # levels of nesting
_LARGEST_EXPONENT = 64
_SYMBOL = re.compile(r"[a-z_]{1,16}[0-9]{1,6}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,400}(\.[0-9]{0,400})?([eE][-+]?[0-9]{1,4})?")
_CHARACTERS = re.compile(r"[A-Za-z0-9_ '\"().,=<>!+\-*/%&|~]*")
_CONSTANTS = frozenset({"true", "false", "True", "False", "oo", "int_oo"})
# Functions of sympy and of torch.utils._sympy that torch writes. Each one computes a number or a truth value.
_FUNCTIONS = words(
    """Integer Rational Float Symbol Dummy Add Mul Pow Mod Max Min Abs floor ceiling
    Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan
    And Or Not Xor Piecewise ExprCondPair Tuple
    FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow
    FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat
    Identity"""
)
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
_NAMED = frozenset({"Symbol", "Dummy"})
_ASSUMPTIONS = words(
    """positive negative nonnegative nonpositive integer real zero nonzero finite even odd rational complex commutative
    extended_real infinite precision dummy_index evaluate"""
)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr)
_UNARY = (ast.USub, ast.UAdd, ast.Not, ast.Invert)
_MEASURES = frozenset({"size", "stride", "storage_offset", "dim", "numel"})
_GUARD_FUNCTIONS = _FUNCTIONS - _NAMED - {"Integer", "Rational", "Float"} | {
    "min",
    "max",
    "abs",
    "int",
    "float",
    "bool",
}
_KEY = re.compile(r"[\w.\- /:]{1,200}")


def check_size(text: str) -> None:
    """Raises ValueError unless `text` is arithmetic on symbols and numbers."""
    _size(_parsed(text, _CHARACTERS), _DEEPEST, powers=True)


def check_guard(text: str) -> None:
    """Raises ValueError unless `text` is a condition on sizes of the inputs ("L['x'].size()[0] <= 8")."""
    _guard(_parsed(text, None), _DEEPEST)


def _parsed(text: str, characters: re.Pattern[str] | None) -> ast.expr:
    if len(text) > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST} characters, got {len(text)}")
    if "\n" in text or "\r" in text or (characters is not None and not characters.fullmatch(text)):
        raise ValueError("expected arithmetic on symbols and numbers")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("expected an expression") from None


def _size(node: ast.expr, depth: int, *, powers: bool) -> None:
    if depth <= 0:
        raise ValueError(f"expected at most {_DEEPEST} levels of brackets")
    match node:
        case ast.Constant(value=int() | float()):
            pass
        case ast.Name(id=name) if name in _CONSTANTS or _SYMBOL.fullmatch(name):
            pass
        case ast.UnaryOp(op=op, operand=operand) if isinstance(op, _UNARY):
            _size(operand, depth - 1, powers=powers)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            _power(left, right, depth, powers=powers)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
            _size(left, depth - 1, powers=powers)
            _size(right, depth - 1, powers=powers)
        case ast.BoolOp(values=values):
            for value in values:
                _size(value, depth - 1, powers=powers)
        case ast.Compare(left=left, comparators=comparators, ops=ops) if all(_compares(op) for op in ops):
            for value in (left, *comparators):
                _size(value, depth - 1, powers=powers)
        case ast.Tuple(elts=elements):
            for value in elements:
                _size(value, depth - 1, powers=powers)
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=keywords) if function in _FUNCTIONS:
            _call(function, arguments, keywords, depth, powers=powers)
        case _:
            raise ValueError(f"{_shown(node)} is not allowed")


def _call(function: str, arguments: list[ast.expr], keywords: list[ast.keyword], depth: int, *, powers: bool) -> None:
    for keyword in keywords:
        if keyword.arg not in _ASSUMPTIONS or not isinstance(keyword.value, ast.Constant):
            raise ValueError(f"{function} with {keyword.arg!r} is not allowed")
        if not isinstance(keyword.value.value, (bool, int)):
            raise ValueError(f"{function} with {keyword.arg!r} is not allowed")
    if function in _NAMED or function == "Float":
        match arguments:
            case [ast.Constant(value=str(text))] if (_SYMBOL if function in _NAMED else _NUMBER).fullmatch(text):
                return
            case [ast.Constant(value=int() | float())] if function == "Float":
                return
        raise ValueError(f"{function} needs one {'symbol' if function in _NAMED else 'number'}, such as 's0' or '1.5'")
    if function in _POWERS and len(arguments) == 2:
        _power(arguments[0], arguments[1], depth, powers=powers)
        return
    for argument in arguments:
        _size(argument, depth - 1, powers=powers)


def _power(base: ast.expr, exponent: ast.expr, depth: int, *, powers: bool) -> None:
    """A power of a power, or a large exponent, would take sympy for ever."""
    if not powers:
        raise ValueError("a power of a power is not allowed")
    value = _whole(exponent)
    if value is None or abs(value) > _LARGEST_EXPONENT:
        raise ValueError(f"expected a whole exponent of at most {_LARGEST_EXPONENT}, got {_shown(exponent)}")
    _size(base, depth - 1, powers=False)


def _whole(node: ast.expr) -> int | float | None:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Call(func=ast.Name(id="Integer"), args=[argument], keywords=[]):
            return _whole(argument)
        case ast.Call(func=ast.Name(id="Rational"), args=[above, below], keywords=[]):
            above_value, below_value = _whole(above), _whole(below)
            return None if above_value is None or not below_value else above_value / below_value
    return None


def _guard(node: ast.expr, depth: int) -> None:
    if depth <= 0:
        raise ValueError(f"expected at most {_DEEPEST} levels of brackets")
    match node:
        case ast.Constant(value=int() | float()):
            return
        case ast.UnaryOp(op=op, operand=operand) if isinstance(op, _UNARY):
            _guard(operand, depth - 1)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
            _guard(left, depth - 1)
            _guard(right, depth - 1)
        case ast.BoolOp(values=values):
            for value in values:
                _guard(value, depth - 1)
        case ast.Compare(left=left, comparators=comparators, ops=ops) if all(_compares(op) for op in ops):
            for value in (left, *comparators):
                _guard(value, depth - 1)
        case ast.Subscript(value=value, slice=ast.Constant(value=int())):
            _guard(value, depth - 1)
        case ast.Subscript() if _is_input(node):
            return
        case ast.Call(func=ast.Attribute(value=value, attr=attribute), args=arguments, keywords=[]) if (
            attribute in _MEASURES
            and _is_input(value)
            and all(isinstance(a, ast.Constant) and isinstance(a.value, int) for a in arguments)
        ):
            return
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if function in _GUARD_FUNCTIONS:
            for argument in arguments:
                _guard(argument, depth - 1)
        case _:
            raise ValueError(f"{_shown(node)} is not allowed")


def _is_input(node: ast.expr) -> bool:
    """Whether the node is an input or a part of one: L['x'], L['x']['a'], L['x'][0]."""
    while isinstance(node, ast.Subscript):
        match node.slice:
            case ast.Constant(value=str(key)) if _KEY.fullmatch(key):
                pass
            case ast.Constant(value=int()):
                pass
            case _:
                return False
        node = node.value
    return isinstance(node, ast.Name) and node.id == "L"


def _compares(operator: ast.cmpop) -> bool:
    return isinstance(operator, (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE))


def _shown(node: ast.expr) -> str:
    try:
        text = ast.unparse(node)
    except (RecursionError, ValueError):
        text = type(node).__name__
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")
