"""Flags of `loquent serve` for whoever runs it: keys, TLS, logs, sessions that outlive a process."""

from __future__ import annotations

import argparse
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loquent.speech.commands.arguments import CommandError, UsageError
from loquent.speech.net.operation.logs import FORMATS

if TYPE_CHECKING:
    from loquent.speech.net.operation.keys import Key


def add_operating_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    group = parser.add_argument_group("operation")
    group.add_argument(
        "--api-keys",
        metavar="FILE",
        help="YAML list of keys, each with a name and limits of its own, besides --api-key",
    )
    group.add_argument("--tls-certificate", metavar="FILE", help="certificate, with those up to its root, in PEM")
    group.add_argument("--tls-key", metavar="FILE", help="its private key, in PEM")
    group.add_argument(
        "--session-folder",
        metavar="FOLDER",
        help="where streams that can be resumed are saved, to survive a crash or move to another process (default: "
        "they wait in memory)",
    )
    group.add_argument("--log-format", default="text", choices=FORMATS, help="of the log: text or JSON, a line each")


def operating_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags ask of `create_app`, checked before a model is loaded.

    Raises:
        CommandError: a file cannot be read, or is not what it should be.
    """
    folder = None if arguments.session_folder is None else Path(arguments.session_folder)
    return {"keys": _keys(arguments.api_keys), "session_folder": folder}


def tls_files(arguments: argparse.Namespace) -> tuple[str, str] | None:
    """The certificate and its key, if there are any.

    Raises:
        CommandError: they cannot be read, or do not belong together.
    """
    files = (arguments.tls_certificate, arguments.tls_key)
    if files == (None, None):
        return None
    if None in files:
        raise UsageError("--tls-certificate and --tls-key go together; give both")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files)
    except OSError as error:  # SSLError is one
        raise CommandError(f"--tls-certificate {files[0]} and --tls-key {files[1]} cannot be used: {error}") from error
    return files


def _keys(file: str | None) -> list[Key]:
    if file is None:
        return []
    from loquent.speech.net.operation.keys import read_keys

    try:
        return read_keys(Path(file))
    except OSError as error:
        raise CommandError(f"cannot read the keys in {file}: {error.strerror}") from error
