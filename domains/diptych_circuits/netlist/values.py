"""Numbers with engineering suffixes, and expressions of parameters."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from diptych.data.readable import Unreadable

_SUFFIXES = {
    "t": 1e12, "g": 1e9, "meg": 1e6, "x": 1e6, "k": 1e3, "mil": 25.4e-6,
    "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "a": 1e-18,
}  # fmt: skip
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(meg|mil|[tgxkmunpfa])?[a-z%]*", re.IGNORECASE)
_INSIDE = re.compile(
    r"(?<![\w.])((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(meg|mil|[tgxkmunpfa])?[a-z]*", re.IGNORECASE
)
_POWERS = {suffix: round(math.log10(scale)) for suffix, scale in _SUFFIXES.items() if suffix != "mil"}


_ENDS = {suffix: f"e{power}" for suffix, power in _POWERS.items() if len(suffix) == 1}
_ENDS.update({suffix.upper(): power for suffix, power in _ENDS.items()})


def number(text: str) -> float | None:
    """A number such as 4.7k, 10MEG, 0.15u, 1e-15, 2pF; None where the text is none. F alone is femto, as in SPICE."""
    power = _ENDS.get(text[-1:])
    try:
        return (
            float(text) if power is None else float(text[:-1] + power)
        )  # rounded once, as the decimal would be
    except ValueError:
        match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    mantissa, suffix = match.groups()
    if suffix is None:
        return float(mantissa)
    suffix = suffix.lower()
    if suffix == "mil" or "e" in mantissa.lower():
        return float(mantissa) * _SUFFIXES[suffix]
    return float(f"{mantissa}e{_POWERS[suffix]}")


_FUNCTIONS: dict[str, Callable[..., float]] = {
    "abs": abs, "sqrt": math.sqrt, "exp": math.exp, "ln": math.log, "log": math.log, "log10": math.log10,
    "min": min, "max": max, "pow": pow, "pwr": pow, "int": math.trunc, "floor": math.floor, "ceil": math.ceil,
    "round": round, "nint": round, "sgn": lambda x: math.copysign(1.0, x) if x else 0.0,
    "sin": math.sin, "cos": math.cos, "tan": math.tan, "atan": math.atan,
}  # fmt: skip
_BINARY: dict[type, Callable[[float, float], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.Mod: operator.mod,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


class Scope:
    """Parameters by name, in the scopes around them; each is evaluated when it is asked for."""

    def __init__(self, texts: Mapping[str, str], around: Scope | None = None) -> None:
        self.texts = texts
        self.around = around
        self.known: dict[str, float] = {}
        self._open: set[str] = set()

    def of(self, name: str) -> float:
        """The value of a parameter. Raises Unreadable where there is none or it depends on itself."""
        if name in self.known:
            return self.known[name]
        if name not in self.texts:
            if self.around is None:
                raise Unreadable(f"unknown parameter: {name!r} has no value")
            return self.around.of(name)
        if name in self._open:
            raise Unreadable(f"circular parameter: {name!r} depends on itself")
        self._open.add(name)
        try:
            self.known[name] = self.value(self.texts[name])
        finally:
            self._open.discard(name)
        return self.known[name]

    def value(self, text: str) -> float:
        """A number, a parameter or an expression of both. Raises Unreadable where it is none of them."""
        plain = number(text)
        if plain is not None:
            return plain
        inner = text.strip().strip("'\"{}").strip().lower()
        inner = _INSIDE.sub(lambda m: repr(number(m[0]) or 0.0), inner).replace("^", "**")
        try:
            tree = ast.parse(inner, mode="eval")
            return float(self._of(tree.body))
        except (SyntaxError, ArithmeticError, ValueError, TypeError, RecursionError, MemoryError):
            raise Unreadable(
                "expression: a parameter's value is no number or expression that can be read"
            ) from None

    def _of(self, node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as value):
                return float(value)
            case ast.Name(id=name):
                return self.of(name)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                result = _BINARY[type(op)](self._of(left), self._of(right))
                return float(result)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
                return float(_BINARY[type(op)](self._of(left), self._of(right)))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._of(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._of(operand)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                return float(_FUNCTIONS[name](*(self._of(arg) for arg in args)))
        raise ValueError
