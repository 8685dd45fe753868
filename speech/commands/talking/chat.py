"""Which chat model the command line names, and the agent around it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from loquent.speech.commands.arguments import CommandError, UsageError

if TYPE_CHECKING:
    from loquent.speech.agent.reply import Chat
    from loquent.speech.runtime.engine import Engine


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that say who replies."""
    group = parser.add_argument_group("chat model")
    group.add_argument(
        "--chat",
        metavar="URL",
        help="OpenAI-compatible server that writes the replies, such as http://localhost:8080/v1",
    )
    group.add_argument("--chat-model", metavar="NAME", help="the model, as that server names it")
    group.add_argument(
        "--chat-key-env", metavar="NAME", help="environment variable with the key of that server (default: no key)"
    )
    group.add_argument(
        "--local", metavar="MODEL", help="instead, a causal language model of Hugging Face: folder or hub id"
    )
    group.add_argument("--instructions", metavar="TEXT", help="to the model (default: to be brief)")


def chat_asked(arguments: argparse.Namespace) -> Chat | None:
    """The chat model that the flags ask for; a local one is loaded. None if they ask for none.

    Raises:
        UsageError: they do not fit.
    """
    from loquent.speech.agent.chat_client import ChatServer

    if arguments.chat and arguments.local:
        raise UsageError("--chat and --local exclude each other")
    if not arguments.chat:
        for name in ("chat_model", "chat_key_env"):
            if getattr(arguments, name):
                raise UsageError(f"--{name.replace('_', '-')} is for --chat, which is missing")
        return _local(arguments) if arguments.local else None
    if not arguments.chat_model:
        raise UsageError("--chat needs --chat-model: the name of the model, as the server has it")
    key = None
    if arguments.chat_key_env:
        key = os.environ.get(arguments.chat_key_env)
        if not key:
            raise UsageError(f"--chat-key-env {arguments.chat_key_env}: there is no such environment variable")
    try:
        return ChatServer(arguments.chat, arguments.chat_model, key)
    except ValueError as error:
        raise UsageError(f"--chat: {error}") from error


def _local(arguments: argparse.Namespace) -> Chat:
    from loquent.speech.agent.local_model import LocalModel
    from loquent.speech.devices import compute_device

    try:
        return LocalModel.from_pretrained(arguments.local, device=compute_device(arguments.device))
    except (OSError, ValueError) as error:
        raise CommandError(f"--local {arguments.local}: {error}") from error


def noticing_engine(hear: Engine) -> Engine:
    """Voice activity for the streams of a recogniser."""
    from loquent.speech.agent.activity import ActivityTask
    from loquent.speech.audio.vad import SileroVad
    from loquent.speech.runtime.engine import Engine

    engine = Engine(ActivityTask(SileroVad.from_pretrained().to(hear.device)), capacity=hear.capacity)
    engine.resamplers = hear.resamplers  # of the same audio
    return engine
