"""YAML files as frozen dataclasses: every key is checked, and an error names the key."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration with an unknown key or a value of the wrong kind."""


def read_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, changed by ``key.key=value``, with ``${VARIABLE}`` replaced from the environment.

    The key ``base`` names another file beside it, whose values hold where this one says nothing.

    Raises:
        ConfigError: no such file, not YAML, no mapping, or an override without "=".
    """
    import yaml

    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {os.fspath(path)!r}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{os.fspath(path)!r} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{os.fspath(path)!r} holds {type(config).__name__}; expected keys and values")
    if "base" in config:
        config = merged(read_config(Path(path).parent / str(config.pop("base"))), config)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"expected key=value, got {override!r}")
        place = config
        *outer, last = key.split(".")
        for part in outer:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {part} is a value, not a group of keys")
        place[last] = yaml.safe_load(value)
    return config


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, group by group; the keys of ``mean_of`` are models, not settings, and go together."""
    result = dict(base)
    for key, value in changes.items():
        both_groups = isinstance(value, dict) and isinstance(base.get(key), dict) and key != "mean_of"
        result[key] = merged(base[key], value) if both_groups else value
    return result


def parse_config(kind: type[T], value: Any, key: str = "") -> T:
    """Make a ``kind``, a dataclass, out of a mapping; nested dataclasses, tuples, dicts and literals are followed.

    Raises:
        ConfigError: an unknown or missing key, a value of another type, or one that the dataclass refuses.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{key or 'the configuration'}: expected a group of keys, got {value!r}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    inside = f"{key}." if key else ""
    for name in value:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"
            raise ConfigError(f"{inside}{name}: unknown key; {hint}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ConfigError(f"{inside}{name}: missing")
    parsed = {name: _parsed(hints[name], given, f"{inside}{name}") for name, given in value.items()}
    try:
        return kind(**parsed)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{key or 'the configuration'}: {error}") from error


def _parsed(hint: Any, value: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (one for one in arguments if one is not type(None))
        return _parsed(hint, value, key)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{key}: expected one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key}: expected a list, got {value!r}")
        if arguments[-1] is not Ellipsis and len(arguments) != len(value):
            raise ConfigError(f"{key}: expected {len(arguments)} values, got {len(value)}")
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(
            _parsed(one, item, f"{key}[{at}]") for at, (one, item) in enumerate(zip(inner, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{key}: expected a group of keys, got {value!r}")
        return {str(name): _parsed(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return parse_config(hint, value, key)
    return _scalar(hint, value, key)


def _scalar(hint: Any, value: Any, key: str) -> Any:
    if hint is str and isinstance(value, str):
        return _expanded(value, key)
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except (TypeError, ValueError):
            pass
    elif type(value) is hint:
        return value
    expected = {str: "text", float: "a number", int: "a whole number", bool: "true or false"}.get(hint, str(hint))
    raise ConfigError(f"{key}: expected {expected}, got {value!r}")


def _expanded(text: str, key: str) -> str:
    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise ConfigError(f"{key}: ${{{name}}} is not set in the environment")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", variable, text)
