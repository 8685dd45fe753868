"""Options by name are checked against one description of them, the dataclass, and errors name the option."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from loquent.speech.runtime.options import OptionError, parse_options


@dataclass(frozen=True)
class Inner:
    size: int
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner(1)
    name: str = "x"
    kind: Literal["a", "b", 1] = "a"
    fast: bool = False
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] | None = ()
    inners: tuple[Inner, ...] = ()
    others: dict[str, Inner] = field(default_factory=dict)
    maybe: Inner | None = None
    anything: Any = None
    derived: int = field(init=False, default=3)


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({}, Outer()),
        ({"inner": {"size": 3, "rate": 1}, "name": "y", "fast": True}, Outer(Inner(3, 1.0), "y", fast=True)),
        ({"inner": Inner(4), "kind": "b"}, Outer(Inner(4), kind="b")),
        ({"pair": [1, 2.5], "many": (3, 1)}, Outer(pair=(1.0, 2.5), many=(3, 1))),
        ({"many": None, "maybe": None}, Outer(many=None)),
        ({"inners": [{"size": 2}, Inner(3)]}, Outer(inners=(Inner(2), Inner(3)))),
        ({"others": {"one": {"size": 2}}, "maybe": {"size": 5}}, Outer(others={"one": Inner(2)}, maybe=Inner(5))),
        ({"anything": [1, {"a": None}], "kind": 1}, Outer(anything=[1, {"a": None}], kind=1)),
    ],
)
def test_values_of_every_kind(values: Mapping[str, Any], made: Outer) -> None:
    parsed = parse_options(Outer, values)
    assert parsed == made
    assert [type(one) for one in parsed.pair] == [float, float]
    assert type(parsed.inner.rate) is float


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"nam": "x"}, r"^nam: unknown; did you mean name\? expected one of inner, name, kind, .*, anything$"),
        ({"derived": 4}, "^derived: unknown; expected one of"),
        ({"inner": {"size": 1, "colour": 2}}, r"^inner\.colour: unknown; expected one of size, rate$"),
        ({"inner": {}}, r"^inner\.size: missing$"),
        ({"inner": 3}, "^inner: expected names with values, got 3$"),
        ({"inner": None}, "^inner: expected names with values, got None$"),
        ({"inner": {"size": 1.0}}, r"^inner\.size: expected a whole number, got 1\.0$"),
        ({"inner": {"size": True}}, r"^inner\.size: expected a whole number, got True$"),
        ({"inner": {"size": "1"}}, r"^inner\.size: expected a whole number, got '1'$"),
        ({"inner": {"size": 1, "rate": False}}, r"^inner\.rate: expected a number, got False$"),
        ({"inner": {"size": 1, "rate": "fast"}}, r"^inner\.rate: expected a number, got 'fast'$"),
        ({"inner": {"size": 1, "rate": math.nan}}, r"^inner\.rate: expected a finite number, got nan$"),
        ({"pair": [0, -math.inf]}, r"^pair\[1\]: expected a finite number, got -inf$"),
        ({"inner": {"size": 1, "rate": 10**400}}, r"^inner\.rate: expected a finite number, got 1000"),
        ({"inner": {"size": 0}}, r"^inner: size must be at least 1, got 0$"),
        ({"kind": "c"}, "^kind: expected one of a, b, 1, got 'c'$"),
        ({"kind": True}, "^kind: expected one of a, b, 1, got True$"),
        ({"kind": ["a"]}, r"^kind: expected one of a, b, 1, got \['a'\]$"),
        ({"fast": 1}, "^fast: expected true or false, got 1$"),
        ({"name": 3}, "^name: expected text, got 3$"),
        ({"pair": [1]}, "^pair: expected 2 values, got 1$"),
        ({"many": 3}, "^many: expected a list, got 3$"),
        ({"many": "ab"}, "^many: expected a list, got 'ab'$"),
        ({"many": [1, "x"]}, r"^many\[1\]: expected a whole number, got 'x'$"),
        ({"inners": [{"size": 1}, {"size": 0}]}, r"^inners\[1\]: size must be at least 1"),
        ({"others": {"one": {"size": "x"}}}, r"^others\.one\.size: expected a whole number"),
        ({"others": [1]}, r"^others: expected names with values, got \[1\]$"),
    ],
)
def test_errors_name_the_option(values: Mapping[str, Any], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        parse_options(Outer, values)


def test_errors_begin_with_the_group() -> None:
    with pytest.raises(OptionError, match=r"^stream\.inner\.size: missing$"):
        parse_options(Outer, {"inner": {}}, "stream")
    with pytest.raises(OptionError, match=r"^size must be at least 1, got 0$"):
        parse_options(Inner, {"size": 0})
    with pytest.raises(OptionError, match=r"^stream: size must be at least 1, got 0$"):
        parse_options(Inner, {"size": 0}, "stream")
    with pytest.raises(OptionError, match=r"^the options: expected names with values, got 3$"):
        parse_options(Inner, 3)  # type: ignore[arg-type]


def test_a_dataclass_that_cannot_be_parsed_is_the_programmers_fault() -> None:
    @dataclass(frozen=True)
    class Unsuited:
        path: complex = 0j

    with pytest.raises(TypeError, match=r"^path: options annotated .*complex"):
        parse_options(Unsuited, {"path": "x"})
