"""Flags from a file and from the environment: both are read by the flags' own descriptions, and flags win.

A command that has the flag ``--config`` takes every other flag of its own from a YAML file, by its name without the
dashes, and from variables such as ``LOQUENT_SERVE_MAX_SESSIONS``. Flags win over variables, and these over the file. A
list stands for a flag that may be repeated, names with values for one that takes ``NAME=VALUE``.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loquent.speech.commands.arguments import UsageError

LARGEST = 1_048_576  # bytes of a file of settings


class Pairs(argparse.Action):
    """``NAME=VALUE``, repeatable: a dictionary. ``type`` makes one of a text."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Add a pair to those there are; of two with the same name the last one counts."""
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), **values})


def with_settings(
    words: Sequence[str], parser: argparse.ArgumentParser, command: str, environ: Mapping[str, str]
) -> list[str]:
    """Put what the environment and the file say before the flags of a command.

    Args:
        words: what follows the name of the command, in one spelling (`arguments.normalised`).
        parser: of the command. One without ``--config`` is left alone.
        environ: variables of the process.

    Raises:
        UsageError: an unknown name, or a value that its flag does not take; the message says where it is.
    """
    flags = {action.option_strings[-1].removeprefix("--"): action for action in parser._actions if _settable(action)}
    if "--config" not in parser._option_string_actions:
        return list(words)
    prefix = f"LOQUENT_{command.upper()}_"
    variables = {name: value for name, value in environ.items() if name.startswith(prefix) and value}
    given, _ = _config_flag(parser).parse_known_args(list(words))
    file = given.config or variables.pop(f"{prefix}CONFIG", None)
    variables.pop(f"{prefix}CONFIG", None)
    lower: dict[str, list[str]] = {}
    if file is not None:
        for name, value in _read(Path(file)).items():
            flag = _known(str(name).replace("_", "-"), flags, f"{file}: {name}", "")
            lower[flag] = _tokens(flag, flags[flag], value, f"{file}: {name}")
    for variable, text in variables.items():
        name = variable.removeprefix(prefix).lower().replace("_", "-")
        flag = _known(name, flags, f"${variable}", prefix)
        several = isinstance(flags[flag], argparse._AppendAction | Pairs)
        value = [part.strip() for part in text.split(",")] if several else text
        tokens = _tokens(flag, flags[flag], value, f"${variable}")
        lower[flag] = [*lower.get(flag, []), *tokens] if isinstance(flags[flag], Pairs) else tokens
    on_line = {word.partition("=")[0].removeprefix("--") for word in words}
    replaced = {name for name, action in flags.items() if name in on_line and not isinstance(action, Pairs)}
    return [token for name, tokens in lower.items() if name not in replaced for token in tokens] + list(words)


def _settable(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.dest not in ("help", "config", "debug")


def _config_flag(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    alone = type(parser)(prog=parser.prog, add_help=False, allow_abbrev=False)
    alone.add_argument("--config")
    return alone


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"{file} has {file.stat().st_size} bytes, at most {LARGEST} are read")
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the settings in {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)  # the whole of what the parser says may show a key
        where = "" if mark is None else f", line {mark.line + 1}"
        raise UsageError(
            f"{file}{where} is not YAML: {getattr(error, 'problem', None) or 'it cannot be read'}"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{file} holds a {type(values).__name__}; expected flags with values, such as `port: 8000`")
    return values


def _known(name: str, flags: Mapping[str, argparse.Action], where: str, prefix: str) -> str:
    if name in flags:
        return name
    near = difflib.get_close_matches(name, flags, 1)
    spelt = [prefix + one.upper().replace("-", "_") if prefix else one for one in near]
    hint = f"did you mean {spelt[0]}?" if spelt else "`loquent serve --help` lists the flags"
    raise UsageError(f"{where}: there is no such setting; {hint}")


def _tokens(flag: str, action: argparse.Action, value: Any, where: str) -> list[str]:
    """A value as words of a command line, checked as the flag checks it."""
    if isinstance(value, dict) and isinstance(action, Pairs | argparse._AppendAction):
        value = [f"{name}={_text(one, where)}" for name, one in value.items()]
    several = isinstance(action, Pairs | argparse._AppendAction)
    if isinstance(value, list) and not several:
        raise UsageError(f"{where}: takes one value, got a list")
    if action.nargs == 0 or (action.nargs == "?" and isinstance(value, bool)):  # a switch, or a flag with a default
        if not isinstance(value, bool) and str(value).lower() not in ("true", "false"):
            raise UsageError(f"{where}: expected true or false, got {value!r}")
        return [f"--{flag}"] if str(value).lower() == "true" else []
    return [
        f"--{flag}={_checked(action, _text(one, where), where)}"
        for one in (value if isinstance(value, list) else [value])
    ]


def _text(value: Any, where: str) -> str:
    if value is None:
        return "none"
    if not isinstance(value, str | int | float):  # bool is an int
        raise UsageError(f"{where}: expected a text or a number, got {value!r}")
    return str(value)


def _checked(action: argparse.Action, text: str, where: str) -> str:
    kind = action.type if callable(action.type) else str
    try:
        value = kind(text)
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        named = getattr(kind, "__name__", "value")
        why = str(error) if isinstance(error, argparse.ArgumentTypeError) else f"invalid {named} value {text!r}"
        raise UsageError(f"{where}: {why}") from error
    if action.choices is not None and value not in action.choices:
        raise UsageError(f"{where}: expected one of {', '.join(map(str, action.choices))}, got {text!r}")
    return text
