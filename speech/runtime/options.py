"""Options by name, from any source (command line, server, YAML, Python), checked and made into a frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


class OptionError(ValueError):
    """An unknown or missing option, or a value that it does not take. The message begins with the option's name."""


class UnknownOption(OptionError):
    """There is no option of that name.

    Attributes:
        name: as it was given.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def parse_options(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Make a dataclass out of values by name. Its fields and their annotations are the only description of the options.

    | annotation | accepted |
    |---|---|
    | float | int or float, finite, made a float; not bool |
    | int, bool, str | that type alone: neither True for 1 nor 1.0 |
    | X or None | None, and what X accepts |
    | Literal["a", "b"] | one of these, of the same type |
    | tuple[X, Y], tuple[X, ...] | a list or a tuple, made a tuple |
    | dict[str, X] | a mapping with texts as names |
    | a dataclass | a mapping, parsed likewise, or an instance |
    | Any | anything |

    Args:
        kind: the dataclass; its ``__post_init__`` may raise ValueError, whose text is kept.
        values: by the names of fields, or by other names that the class has for them in ``aliases`` (a class attribute,
            public name to field); a field without a default has to be among them.
        where: name of the group that these options are, put before their names in errors: "data" makes "data.train".

    Raises:
        OptionError: an unknown (`UnknownOption`) or missing name, a value of another type, or one that the dataclass
            refuses. It has the public name, where there is one.
        TypeError: a field of the dataclass has an annotation that is not in the table.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"{where or 'the options'}: expected names with values, got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    aliases: Mapping[str, str] = getattr(kind, "aliases", {})
    renamed = {aliases.get(name, name): value for name, value in values.items()}
    if len(renamed) < len(values):
        raise OptionError(f"{where or 'the options'}: one is given twice, among {', '.join(values)}")
    values = renamed
    public = {field: name for name, field in aliases.items()}
    for name in values:
        if name not in fields:
            known = [public.get(field, field) for field in fields]
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            message = f"{_inside(where, name)}: unknown; {hint}expected one of {', '.join(known)}"
            raise UnknownOption(_inside(where, name), message)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise OptionError(f"{_inside(where, public.get(name, name))}: missing")
    annotations = typing.get_type_hints(kind)
    parsed = {
        name: _parsed(annotations[name], value, _inside(where, public.get(name, name)))
        for name, value in values.items()
    }
    try:
        return kind(**parsed)
    except ValueError as error:
        raise OptionError(f"{where}: {error}" if where else str(error)) from error


def _inside(where: str, name: Any) -> str:
    return f"{where}.{name}" if where else str(name)


def _parsed(annotation: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        kinds = [one for one in arguments if one is not type(None)]
        if len(kinds) == 1 and len(arguments) == 2:
            return None if value is None else _parsed(kinds[0], value, where)
    if origin is Literal:
        if not any(type(value) is type(one) and value == one for one in arguments):
            raise OptionError(f"{where}: expected one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise OptionError(f"{where}: expected a list, got {value!r}")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(inner) != len(value):
            raise OptionError(f"{where}: expected {len(inner)} values, got {len(value)}")
        return tuple(
            _parsed(one, item, f"{where}[{at}]") for at, (one, item) in enumerate(zip(inner, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, Mapping):
            raise OptionError(f"{where}: expected names with values, got {value!r}")
        return {str(name): _parsed(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return value if isinstance(value, annotation) else parse_options(annotation, value, where)
    if annotation in _SCALARS:
        return _scalar(annotation, value, where)
    raise TypeError(f"{where}: options annotated {annotation} cannot be parsed; see `parse_options`")


_SCALARS = {str: "text", float: "a number", int: "a whole number", bool: "true or false"}


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and type(value) in (int, float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise OptionError(f"{where}: expected a finite number, got {value!r}")
        return number
    if type(value) is kind:
        return value
    raise OptionError(f"{where}: expected {_SCALARS[kind]}, got {value!r}")
