"""``loquent talk``: a conversation with a chat model, over microphone and loudspeaker, or from file to file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loquent.speech.commands.arguments import (
    CommandError,
    UsageError,
    add_model_arguments,
    add_streaming_arguments,
    check_options,
    load_recognizer,
    model_name,
    optional,
    streaming_options,
    voice_name,
)
from loquent.speech.commands.speak import AUDIO_ENDINGS
from loquent.speech.commands.talking.chat import add_chat_arguments, chat_asked, noticing_engine

if TYPE_CHECKING:
    from loquent.speech.agent.agent import Agent
    from loquent.speech.agent.reply import Chat
    from loquent.speech.agent.talk import Talk
    from loquent.speech.audio.sources import AudioSource
    from loquent.speech.commands.talking.outputs import Loudspeaker, Recorder
    from loquent.speech.runtime.events import Event

PAUSE_S = 0.5  # that closes an utterance: less than for captions, as somebody waits for the reply
AHEAD_S = 0.5  # of speech that is made before it is needed
PACKET_MS = 32.0  # of the microphone


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "talk",
        help="talk with a chat model",
        description="Talk with a chat model: it answers when you have finished, and falls silent when you break in. "
        "Wear headphones, or pass --half-duplex. The talk is written to standard output. Ctrl-C ends it; a second one "
        "kills.",
        allow_abbrev=False,
    )
    add_chat_arguments(parser)
    sound = parser.add_argument_group("sound")
    sound.add_argument("--microphone", metavar="N", help="number or part of the name of the microphone")
    sound.add_argument("--input", metavar="FILE", help="a recording of one side of a talk instead of the microphone")
    sound.add_argument(
        "--output",
        "-o",
        metavar="FILE",
        help=f"write the agent's side here, not to the loudspeaker: {', '.join(AUDIO_ENDINGS)}",
    )
    sound.add_argument("--half-duplex", action="store_true", help="do not listen while the agent speaks")
    voice = parser.add_argument_group("voice")
    voice.add_argument("--speak", metavar="NAME", help="voice: name, folder or hub id")
    voice.add_argument("--voice", metavar="NAME", help="of its speakers, or a mixture: anna:0.7+ben:0.3")
    streaming = add_streaming_arguments(parser)
    streaming.add_argument(
        "--language", type=optional(str), help="that is spoken, as code or name (default: detect it)"
    )
    add_model_arguments(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Talk until the recording or Ctrl-C ends it."""
    if arguments.input and arguments.microphone:
        raise UsageError("--input and --microphone exclude each other")
    if arguments.output and Path(arguments.output).suffix.lower() not in AUDIO_ENDINGS:
        raise UsageError(f"--output {arguments.output}: expected a name ending in {', '.join(AUDIO_ENDINGS)}")
    check_options(arguments, stream={})
    chat = chat_asked(arguments)
    if chat is None:
        raise UsageError("who is to reply? Pass --chat URL with --chat-model NAME, or --local MODEL")
    from loquent.speech.audio.playback import PlaybackError
    from loquent.speech.audio.sources import MicrophoneError

    try:
        _talk(arguments, chat)
    except (MicrophoneError, PlaybackError) as error:
        raise CommandError(str(error)) from error
    return 0


def _talk(arguments: argparse.Namespace, chat: Chat) -> None:
    from loquent.speech.audio.files import AudioWriter
    from loquent.speech.audio.playback import Player
    from loquent.speech.commands.live import follow, through
    from loquent.speech.commands.talking.outputs import Loudspeaker, Recorder

    source, agent = _source(arguments), _agent(arguments, chat)
    options = {"half_duplex": arguments.half_duplex} | ({"voice": arguments.voice} if arguments.voice else {})
    form: dict[str, Any] = {"sample_rate": source.sample_rate, "channels": source.channels}
    # Between two files nobody waits: the recording stands still until a reply is there.
    talk = agent.open(**form, patient=bool(arguments.input and arguments.output), **options)
    rate = talk.gives.sample_rate
    assert rate is not None, "a voice gives audio"
    with contextlib.ExitStack() as stack:
        output: Recorder | Loudspeaker
        if arguments.output:
            output = Recorder(stack.enter_context(AudioWriter(arguments.output, rate)).write, rate)
        else:
            output = Loudspeaker(stack.enter_context(Player(rate)), rate)
        stack.callback(output.close)
        shown = Shown(sys.stdout, talk, output)
        print(f"Listening to {source.name}; Ctrl-C ends it.", file=sys.stderr)
        follow(source, lambda packets: through(talk, packets), [shown.show])


def _source(arguments: argparse.Namespace) -> AudioSource:
    from loquent.speech.audio.sources import file_source, microphone_source

    if arguments.input:
        return file_source(arguments.input, PACKET_MS, realtime=not arguments.output)
    chosen = arguments.microphone
    return microphone_source(int(chosen) if chosen and chosen.isdigit() else chosen, PACKET_MS)


def _agent(arguments: argparse.Namespace, chat: Chat) -> Agent:
    from loquent.speech.agent.agent import Agent
    from loquent.speech.agent.options import INSTRUCTIONS
    from loquent.speech.runtime.engine import Engine
    from loquent.speech.tasks import load_task

    print(f"Loading {model_name(arguments)} …", file=sys.stderr)
    recognizer: Any = load_recognizer(arguments)
    rules: Any
    (rules,) = (field.default for field in dataclasses.fields(recognizer.Settings) if field.name == "rules")
    rules = tuple(dataclasses.replace(rule, silence_s=PAUSE_S) if rule.name == "pause" else rule for rule in rules)
    language = {"language": arguments.language} if arguments.language else {}
    hear = Engine(recognizer.streaming_task(**streaming_options(arguments), **language, rules=rules))
    synthesizer = load_task("synthesizer").from_pretrained(voice_name(arguments.speak), device=arguments.device)
    speak = Engine(synthesizer.streaming_task(), ahead_s=AHEAD_S)
    return Agent(hear, noticing_engine(hear), speak, chat, arguments.instructions or INSTRUCTIONS)


class Shown:
    """A listener that writes the talk down and hands speech on."""

    def __init__(self, file: TextIO, talk: Talk, output: Recorder | Loudspeaker) -> None:
        self._file, self._talk, self._output = file, talk, output

    def show(self, event: Event) -> None:
        """Take up an event."""
        from loquent.speech.commands.talking.outputs import Recorder
        from loquent.speech.runtime.events import Speech

        if isinstance(self._output, Recorder):
            self._output.show(event)
        elif isinstance(event, Speech):
            self._output.play(event)
        elif event.type == "interrupted":
            # The talk has reckoned what was heard; the sound card knows. Nothing steps the talk while events are shown.
            for after in self._talk.interrupt(self._output.stop()):
                if after.type != "interrupted":
                    self.show(after)
        self._write(event)

    def _write(self, event: Any) -> None:
        from loquent.speech.agent.replying import REPLY
        from loquent.speech.agent.talk import TURN

        if event.type == "final" and event.stage in (TURN, REPLY):
            name = "you" if event.stage == TURN else "agent"
            print(f"{name}: {event.text}", file=self._file, flush=True)
        elif event.type == "unanswered":
            print(f"loquent: no reply: {event.message}", file=sys.stderr)
