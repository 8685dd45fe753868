"""``loquent serve``: one model for many streams over websockets, with a page to try it."""

from __future__ import annotations

import argparse
import contextlib
import functools
import ipaddress
import logging.config
import re
import signal
import socket
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from loquent.speech.commands.arguments import (
    CommandError,
    UsageError,
    add_key_argument,
    add_model_arguments,
    add_streaming_arguments,
    check_options,
    load_recognizer,
    model_name,
    optional,
    voice_name,
    whole_number,
)
from loquent.speech.commands.configuration import Pairs
from loquent.speech.commands.serving.engines import recognizing, speaking, translating
from loquent.speech.commands.serving.operating import add_operating_arguments, operating_options, tls_files
from loquent.speech.commands.talking.chat import add_chat_arguments, chat_asked, noticing_engine
from loquent.speech.net.limits import Limits
from loquent.speech.net.operation.logs import JsonLines, logging_config
from loquent.speech.runtime.options import parse_options

if TYPE_CHECKING:
    from loquent.speech.net.operation.admin import Loaded


AGENT = "talk"  # name of the model that is an agent


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="serve live recognition, translation and speech over websockets",
        description="Serve many live streams with one model: a websocket, OpenAI's /v1/audio/transcriptions, a page "
        "with a microphone, /health and /metrics. Ctrl-C finishes the streams under way.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML with the other flags by name, without dashes; $LOQUENT_SERVE_MAX_SESSIONS and the like win over it, "
        "and flags over both",
    )
    network = parser.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    network.add_argument("--port", type=int, default=8000, help="port, 0 for any (default: 8000)")
    network.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web pages that may connect besides its own, such as https://example.org, or example.org for any scheme "
        "and port, or * (repeatable)",
    )
    network.add_argument(
        "--connections-per-client",
        type=optional(whole_number(1)),
        default=argparse.SUPPRESS,
        metavar="N",
        help="connections from one address at a time; none: no limit, as behind a proxy all come from one "
        f"(default: {Limits.max_connections_per_client})",
    )
    network.add_argument(
        "--wyoming",
        metavar="PORT",
        help="speak Wyoming, too, for Home Assistant: a port, or tcp://HOST:PORT. The protocol knows no key: anybody "
        "who reaches the port may use the server",
    )
    network.add_argument(
        "--log-level", default="warning", choices=("critical", "error", "warning", "info", "debug"), help="of the log"
    )
    network.add_argument(
        "--limit",
        action=Pairs,
        type=_limit,
        default={},
        dest="limits",
        metavar="NAME=VALUE",
        help="another limit, as max_load=0.7 or max_duration_s=none; docs/how-to/serve.md lists them (repeatable)",
    )
    add_key_argument(parser, "key that clients have to present")
    add_operating_arguments(parser)
    streaming = add_streaming_arguments(parser)
    streaming.add_argument(
        "--language",
        type=optional(str),
        help="of streams that do not say theirs, as code or name; several, such as en,es: detect which of them "
        "(default: detect it)",
    )
    streaming.add_argument("--max-sessions", type=int, default=32, metavar="N", help="streams at a time (default: 32)")
    add_model_arguments(parser)
    parser.add_argument(
        "--translate",
        action="append",
        nargs="?",
        const="loquent/en-es",
        default=[],
        metavar="MODEL",
        help="translator to serve, too, of texts and, with the option translate_to, of speech: name, folder or hub id; "
        "repeatable (default if there is no MODEL: loquent/en-es)",
    )
    parser.add_argument(
        "--speak",
        metavar="NAME",
        help="voice to serve, too: name, folder or hub id; none: no voice (default: loquent/hibari if installed, else "
        "loquent/voice)",
    )
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        dest="aliases",
        metavar="NAME=MODEL",
        help="another name for a model, in every protocol, such as gpt-4o-transcribe=tiny.en (repeatable)",
    )
    parser.add_argument(
        "--voice-alias",
        action="append",
        default=[],
        dest="voice_aliases",
        metavar="NAME=VOICE",
        help="likewise, for a voice of the model that speaks, such as alloy=alto (repeatable)",
    )
    add_chat_arguments(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    if not 0 <= arguments.port <= 65535:
        raise UsageError(f"--port is from 0 to 65535, got {arguments.port}")
    logging.config.dictConfig(logging_config(arguments.log_format, arguments.log_level))
    limits, operating, tls = _limits(arguments), operating_options(arguments), tls_files(arguments)
    wyoming_address = None if arguments.wyoming is None else _wyoming_address(arguments)
    check_options(arguments, stream={})
    name, voice = model_name(arguments), None if arguments.speak == "none" else voice_name(arguments.speak)
    talks = bool(arguments.chat or arguments.local)
    if talks and voice is None:
        raise UsageError("--chat and --local offer an agent that speaks: leave out --speak none")
    served = [name, *([voice] if voice else []), *arguments.translate, *([AGENT] if talks else [])]
    aliases = _named(arguments.aliases, "--alias", served)
    voice_aliases = _named(arguments.voice_aliases, "--voice-alias")
    listener = _bound(arguments.host, arguments.port, "--port")
    wyoming = None if wyoming_address is None else _bound(*wyoming_address, "--wyoming")
    chat = chat_asked(arguments)
    from loquent.speech.agent.agent import Agent
    from loquent.speech.agent.options import INSTRUCTIONS
    from loquent.speech.net.server import create_app

    _tell(arguments, f"Loading {name} …")
    recognizer = load_recognizer(arguments, several=True)
    engine = recognizing(recognizer, arguments)
    engines = {name: engine}
    if voice is not None:
        _tell(arguments, f"Loading {voice} …")
        engines[voice] = speaking(voice, arguments, voice_aliases)
    translators = {}
    for translator in dict.fromkeys(arguments.translate):
        _tell(arguments, f"Loading {translator} …")
        languages, engines[translator] = translating(translator, arguments)
        if languages in translators:
            raise UsageError(f"--translate {translator}: another one translates {' to '.join(languages)} already")
        translators[languages] = engines[translator]
    models: dict[str, Any] = dict(engines)
    if chat is not None and voice is not None:
        notice = noticing_engine(engine)
        models[AGENT] = Agent(engine, notice, engines[voice], chat, arguments.instructions or INSTRUCTIONS)
    chosen = {"head": arguments.head, "language": arguments.language}
    app = create_app(
        models,
        limits,
        transcribe=functools.partial(
            recognizer.transcribe, **{name: value for name, value in chosen.items() if value is not None}
        ),
        token=arguments.api_key,
        allowed_origins=arguments.allowed_origin,
        translators=translators,
        aliases=aliases,
        voice_aliases=voice_aliases,
        wyoming=wyoming,
        load=functools.partial(_loaded, arguments=arguments),
        **operating,
    )
    _serve(app, listener, arguments, tls)
    return 0


def _limits(arguments: argparse.Namespace) -> Limits:
    """What the flags say of limits."""
    named = {f"max_{name}": value for name, value in vars(arguments).items() if name == "connections_per_client"}
    return Limits(**{**arguments.limits, **named})


def _limit(text: str) -> dict[str, Any]:
    """A limit by name, as the field of `Limits` has it."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        number = None if value.lower() == "none" else int(value) if re.fullmatch(r"\d+", value) else float(value)
        parse_options(Limits, {name: number})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return {name: number}


def _named(pairs: list[str], flag: str, known: Collection[str] = ()) -> dict[str, str]:
    """What NAME=VALUE gave a name to; ``known`` are the only values there are."""
    named: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not name or not value or name in named or name in known:
            raise UsageError(f"{flag} {pair}: expected a new NAME=…, each once")
        if known and value not in known:
            raise UsageError(f"{flag} {pair}: {value!r} is not served; expected one of {', '.join(known)}")
        named[name] = value
    return named


def _loaded(name: str, arguments: argparse.Namespace) -> Loaded:
    """A model that is wanted while the server runs, by what is known of its name: a recogniser unless it is known."""
    from loquent.speech.hub import installed
    from loquent.speech.net.operation.admin import Loaded

    task = next((one.task for one in installed() if one.name == name), "recognizer")
    if task == "synthesizer":
        return Loaded(speaking(name, arguments, {}))
    if task == "translator":
        languages, engine = translating(name, arguments)
        return Loaded(engine, languages)
    chosen = argparse.Namespace(**{**vars(arguments), "model": name, "adapters": []})
    return Loaded(recognizing(load_recognizer(chosen), chosen))


def _wyoming_address(arguments: argparse.Namespace) -> tuple[str, int]:
    """Where to speak Wyoming."""
    text: str = arguments.wyoming
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    if not text.startswith("tcp://"):
        host, port = arguments.host, text
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"--wyoming is a port from 0 to 65535, or tcp://HOST:PORT, got {text}")
    return host.strip("[]"), int(port)


def _bound(host: str, port: int, option: str) -> socket.socket:
    """A socket on the address, so that one that is taken is told before a model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise CommandError(f"cannot listen on {host}:{port}: {error.strerror}; choose another {option}") from error
    return listener


def _serve(app: Any, listener: socket.socket, arguments: argparse.Namespace, tls: tuple[str, str] | None) -> None:
    from loquent.speech.net.server import Server

    class Announced(Server):
        """Says where it is once it listens: the port may have been chosen just now."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                guarded = bool(self.service.keys)
                lines = _announcement(arguments.host, self.port, arguments.max_sessions, guarded, tls is not None)
                _tell(arguments, *lines)
                if self.service.wyoming is not None:
                    _announce_wyoming(*self.service.wyoming.address[:2])

    server = Announced(
        app,
        arguments.host,
        arguments.port,
        log_level=arguments.log_level,
        log_format=arguments.log_format,
        tls=tls,
    )
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what uvicorn passes on after an orderly end is not to kill us
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _announcement(host: str, port: int, sessions: int, guarded: bool, tls: bool) -> list[str]:
    lines = [
        f"microphone page  http{'s' * tls}://{_reached(host)}:{port}/",
        f"websocket        ws{'s' * tls}://{_reached(host)}:{port}/v1/stream",
        f"up to {sessions} streams at a time; Ctrl-C stops",
    ]
    if not _loopback(host):
        if not guarded:
            lines.append("anybody who can reach this machine may use it: pass --api-key to keep strangers out")
        if not tls:
            lines.append(
                "browsers give pages a microphone on localhost and over HTTPS only: put a proxy with TLS in front"
            )
    return lines


def _tell(arguments: argparse.Namespace, *lines: str) -> None:
    """Say something on standard error, whatever the level of the log, in its format."""
    if arguments.log_format == "json":
        record = functools.partial(logging.LogRecord, "loquent", logging.INFO, __file__, 0, args=None, exc_info=None)
        lines = tuple(JsonLines().format(record(line)) for line in lines)
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def _announce_wyoming(host: str, port: int) -> None:
    open_to_all = "" if _loopback(host) else " for anybody who can reach it: the protocol knows no key"
    print(f"Wyoming          tcp://{_reached(host)}:{port}{open_to_all}", file=sys.stderr, flush=True)


def _reached(host: str) -> str:
    """A host as it stands in a URL of this machine."""
    everywhere = host in ("0.0.0.0", "::", "")
    return "localhost" if everywhere else f"[{host}]" if ":" in host else host


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
