"""Reads the plain values of a hyperpyyaml file, otherwise a program: nothing that it names is imported or run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20  # bytes; CosyVoice's have 10 thousand
MOST_STEPS = 16  # from one reference to the next
_REFERENCE = re.compile(r"<(\w+)>")


@dataclass(frozen=True)
class Tagged:
    """A value with a tag such as ``!new:package.Class`` or ``!ref``."""

    tag: str
    value: Any


class YamlValues:
    """The values of a file by their place: ``values["hift", "istft_params", "n_fft"]``."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root

    @classmethod
    def read(cls, file: Path) -> YamlValues:
        """Parse a file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no YAML of names and values.
        """
        if file.stat().st_size > LARGEST:
            raise ValueError(f"{file} has {file.stat().st_size} bytes, expected at most {LARGEST} of settings")
        try:
            root = yaml.load(file.read_text(encoding="utf-8"), _Loader)
        except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
            raise ValueError(f"{file} is not YAML: {error}") from error
        if not isinstance(root, dict):
            raise ValueError(f"{file} holds a {type(root).__name__}, expected names and values")
        return cls(root)

    def __getitem__(self, place: tuple[str, ...] | str) -> Any:
        """The value at a place: a number, text, truth value, None, or list of them.

        Raises:
            ValueError: there is none, or it is not plain.
        """
        names = (place,) if isinstance(place, str) else place
        value: Any = self.root
        for depth, name in enumerate(names):
            value = self._followed(value)
            if not isinstance(value, dict) or name not in value:
                raise ValueError(f"the settings have no {'.'.join(names[: depth + 1])}")
            value = value[name]
        return self._plain(".".join(names), self._followed(value), 0)

    def get(self, place: tuple[str, ...], default: Any) -> Any:
        """The value at a place, or another one where there is nothing."""
        try:
            return self[place]
        except ValueError:
            return default

    def tag(self, name: str) -> str:
        """The tag of a value at the top, such as ``new:cosyvoice.llm.llm.Qwen2LM``; empty where it has none."""
        value = self.root.get(name)
        return value.tag if isinstance(value, Tagged) else ""

    def _followed(self, value: Any) -> Any:
        """What a reference refers to, and what a tag stands before."""
        for _ in range(MOST_STEPS):
            if not isinstance(value, Tagged):
                return value
            if value.tag == "ref":
                match = _REFERENCE.fullmatch(str(value.value).strip())
                if match is None or match[1] not in self.root:
                    raise ValueError(f"the settings refer to {str(value.value)[:60]!r}, expected the name of one")
                value = self.root[match[1]]
            else:
                value = value.value
        raise ValueError("the settings refer to each other in a circle")

    def _plain(self, name: str, value: Any, depth: int) -> Any:
        if isinstance(value, list) and depth < 3 and len(value) <= 64:
            return [self._plain(name, self._followed(one), depth + 1) for one in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ValueError(f"{name} is a {type(value).__name__}, expected a plain value")


class _Loader(yaml.SafeLoader):
    """Builds lists, dictionaries and plain values; whatever has a tag of its own becomes `Tagged`."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Tagged:
    if isinstance(node, yaml.MappingNode):
        return Tagged(tag, loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.SequenceNode):
        return Tagged(tag, loader.construct_sequence(node, deep=True))
    return Tagged(tag, loader.construct_scalar(node))


_Loader.add_multi_constructor("!", _tagged)
