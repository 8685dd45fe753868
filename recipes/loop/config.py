"""YAML files as frozen dataclasses: every key is checked, and an error names the key."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from loquent.speech.runtime.options import OptionError, parse_options

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration with an unknown key or a value of the wrong kind."""


def read_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, changed by ``key.key=value``.

    The key ``base`` names another file beside it, whose values hold where this one says nothing.

    Raises:
        ConfigError: no such file, not YAML, no mapping, or an override without "=".
    """
    import yaml

    try:
        config = _from_yaml(Path(path).read_text(encoding="utf-8"))
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
        place[last] = _from_yaml(value)
    return config


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, group by group; the keys of ``mean_of`` are models, not settings, and go together."""
    result = dict(base)
    for key, value in changes.items():
        both_groups = isinstance(value, dict) and isinstance(base.get(key), dict) and key != "mean_of"
        result[key] = merged(base[key], value) if both_groups else value
    return result


def parse_config(kind: type[T], value: Any, key: str = "") -> T:
    """`parse_options` of what a file says, with ``${VARIABLE}`` in texts replaced from the environment.

    Args:
        kind: the dataclass to make.
        value: the mapping.
        key: of the mapping in the file, for errors.

    Raises:
        ConfigError: an unknown or missing key, a value of another type, or one that the dataclass refuses; or a
            variable is not set.
    """
    try:
        return parse_options(kind, _expanded(value, key), key)
    except OptionError as error:
        raise ConfigError(str(error)) from error


def _expanded(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _expanded(one, f"{key}.{name}" if key else str(name)) for name, one in value.items()}
    if isinstance(value, list):
        return [_expanded(one, f"{key}[{at}]") for at, one in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise ConfigError(f"{key}: ${{{name}}} is not set in the environment")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", variable, value)


def _from_yaml(text: str) -> Any:
    import yaml

    return yaml.load(text, _loader())


@cache
def _loader() -> Any:
    """PyYAML's safe loader, but 1e-3 is a number: YAML 1.1 wants 1.0e-3."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader
