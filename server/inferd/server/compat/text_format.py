"""A reader for protobuf's text format that does not need protobuf: gives (field, value) pairs, in order.

It is used for Triton's config.pbtxt, for which the server has no protobuf classes. The grammar is that of the
text-format language specification: `name: value`, `name { ... }`, `name < ... >`, `name: [ ... ]`, comments, adjacent
strings, `,` and `;` between fields. The caller interprets the fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NoReturn, TypeAlias

Value: TypeAlias = "str | int | float | Name | list[Value] | TextMessage"


class TextFormatError(ValueError):
    """The text is not in the text format, or a field has a wrong value. The message says line, what was expected and
    what was found."""

    located = False
    """Whether the message names a line."""

    def at(self, line: int) -> TextFormatError:
        """The error with the line in front of its message, if it is known and not there yet."""
        if self.located or not line:
            return self
        error = TextFormatError(f"line {line}: {self}")
        error.located = True
        return error


class Name(str):
    """An unquoted word: an enum value, `true`, `inf`."""

    __slots__ = ()


class TextMessage(list[tuple[str, Value]]):
    """The fields of a message, in order. A repeated field occurs several times, or once with a list.

    lines   the line of each field, from 1; empty for a message that does not come from a text
    """

    def __init__(self, fields: Iterable[tuple[str, Value]] = ()) -> None:
        super().__init__(fields)
        self.lines: list[int] = []


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?))
    |(?P<name>-?[A-Za-z_][A-Za-z0-9_]*)
    |(?P<symbol>[{}<>\[\]:,;./])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_MAX_DEPTH = 64
MOST_VALUES = 100_000  # fields, and values in them; a settings file has some hundred
_LONGEST_NUMBER = 100  # characters
_SHOWN = 100  # characters of a token in a message


def parse(text: str) -> TextMessage:
    """Parses a message. Raises TextFormatError."""
    return _Parser(text).message(end=None, depth=0)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._kind = ""
        self._token = ""
        self._start = 0
        self._values = 0
        self._counted = 1  # the line of the position before which lines have been counted
        self._counted_to = 0
        self._next()

    def message(self, end: str | None, depth: int) -> TextMessage:
        if depth > _MAX_DEPTH:
            self._fail(f"at most {_MAX_DEPTH} nested messages")
        fields = TextMessage()
        while True:
            if self._kind == "end":
                if end is not None:
                    self._fail(f"{end!r}")
                return fields
            if end is not None and self._token == end and self._kind == "symbol":
                self._next()
                return fields
            fields.lines.append(self._line())
            fields.append(self._field(depth))

    def _count(self) -> None:
        self._values += 1
        if self._values > MOST_VALUES:
            self._fail(f"at most {MOST_VALUES} fields and values")

    def _field(self, depth: int) -> tuple[str, Value]:
        self._count()
        name = self._field_name()
        if self._take(":") or (self._kind == "symbol" and self._token in "{<["):
            value = self._value(depth)
        else:
            self._fail(f"':' or '{{' after {name[:_SHOWN]!r}")
        if not self._take(","):
            self._take(";")
        return name, value

    def _field_name(self) -> str:
        if self._kind == "name" and not self._token.startswith("-"):
            name = self._token
            self._next()
            return name
        if self._take("["):  # an extension or an Any: its full name is the field's name
            parts = []
            while not self._take("]"):
                if self._kind not in ("name", "symbol", "number"):
                    self._fail("']'")
                parts.append(self._token)
                self._next()
            return f"[{''.join(parts)}]"
        return self._fail("a field name")

    def _value(self, depth: int) -> Value:
        if self._take("["):
            items: list[Value] = []
            if self._take("]"):
                return items
            while True:
                items.append(self._single(depth))
                if self._take("]"):
                    return items
                if not self._take(","):
                    self._fail("',' or ']'")
        return self._single(depth)

    def _single(self, depth: int) -> Value:
        self._count()
        kind, token = self._kind, self._token
        if kind == "symbol" and token in "{<":
            self._next()
            return self.message("}" if token == "{" else ">", depth + 1)
        if kind == "string":
            parts = []
            while self._kind == "string":  # adjacent strings are joined
                parts.append(_unescape(self._token[1:-1]))
                self._next()
            return "".join(parts)
        if kind == "number":
            if len(token) > _LONGEST_NUMBER:
                self._fail(f"a number of at most {_LONGEST_NUMBER} characters")
            self._next()
            return _number(token)
        if kind == "name":
            self._next()
            return Name(token)
        return self._fail("a value")

    def _take(self, symbol: str) -> bool:
        if self._kind == "symbol" and self._token == symbol:
            self._next()
            return True
        return False

    def _next(self) -> None:
        while True:
            self._start = self._at
            if self._at >= len(self._text):
                self._kind, self._token = "end", ""
                return
            match = _TOKEN.match(self._text, self._at)
            if match is None:
                self._kind, self._token = "character", self._text[self._at]
                self._fail(
                    "':' between a field and its value" if self._token == "=" else "a field, a value or a bracket"
                )
            self._at = match.end()
            if match.lastgroup != "space":
                self._kind, self._token = match.lastgroup or "", match.group()
                return

    def _line(self) -> int:
        """The line of the current token."""
        self._counted += self._text.count("\n", self._counted_to, self._start)
        self._counted_to = self._start
        return self._counted

    def _fail(self, expected: str) -> NoReturn:
        line = self._text.count("\n", 0, self._start) + 1
        column = self._start - self._text.rfind("\n", 0, self._start)
        more = "..." if len(self._token) > _SHOWN else ""
        got = f"{self._token[:_SHOWN]!r}{more}" if self._token else "the end of the file"
        error = TextFormatError(f"line {line}, column {column}: expected {expected}, got {got}{self._mistaken()}")
        error.located = True
        raise error

    def _mistaken(self) -> str:
        """What another kind of file this seems to be."""
        start = self._text.lstrip()
        if start.startswith("{"):
            return '; this looks like JSON, and a config.pbtxt is protobuf\'s text format: name: "m" max_batch_size: 8'
        return ""


def _number(token: str) -> int | float:
    text = re.sub(r"\s", "", token)
    digits = text.lstrip("-")
    sign = -1 if text.startswith("-") else 1
    if digits[:2] in ("0x", "0X"):
        return sign * int(digits, 16)
    if re.fullmatch(r"0[0-7]+", digits):
        return sign * int(digits, 8)
    if digits.isdigit():
        return sign * int(digits)
    return sign * float(digits.rstrip("fF"))


def _unescape(body: str) -> str:
    if "\\" not in body:
        return body
    out = bytearray()
    at = 0
    for match in _ESCAPE.finditer(body):
        out += body[at : match.start()].encode()
        code = match[1]
        if code[0] in "01234567":
            out.append(int(code, 8) & 0xFF)
        elif code[0] in "xX" and len(code) > 1:
            out.append(int(code[1:], 16))
        elif code[0] in "uU" and len(code) > 1:
            out += chr(min(int(code[1:], 16), 0x10FFFF)).encode(errors="replace")
        else:
            out += _SIMPLE.get(code, code).encode()
        at = match.end()
    out += body[at:].encode()
    return out.decode(errors="replace")
