"""``loquent talk`` from file to file, the loudspeaker's side, and the server's flags."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import loquent.tts
from loquent.asr import Recognizer
from loquent.speech.agent.chat_client import ChatServer
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.commands.cli import main
from loquent.speech.commands.talking.outputs import Loudspeaker, Recorder
from loquent.speech.commands.talking.talk import Shown
from loquent.speech.runtime.events import Interrupted, Marker, Speech

RATE = 24_000
LONG = "The weather is going to be warm and dry for the whole of this week, with a little wind on Saturday."


@pytest.fixture(scope="module", autouse=True)
def _one_model() -> Iterator[None]:
    """The command loads the real models, once for all tests."""
    patch = pytest.MonkeyPatch()
    for kind in (Recognizer, loquent.tts.Synthesizer):
        patch.setattr(kind, "from_pretrained", functools.lru_cache(kind.from_pretrained))
    yield
    patch.undo()


def test_from_file_to_file(chat_server, talking, tmp_path, capsys, monkeypatch) -> None:
    chat_server.script = [LONG, "Fine."]
    monkeypatch.setenv("CHAT_KEY", "sesame")
    monkeypatch.chdir(tmp_path)
    audio = talking("What will the weather be like?", 3.0, "Wait, stop. Tell me the time instead.", 2.0)
    write_audio("user.wav", audio, 16_000)
    flags = ["--chat", chat_server.url, "--chat-model", "m", "--chat-key-env", "CHAT_KEY", "--instructions", "Be kind."]
    command = [
        "talk",
        *flags,
        "--input",
        "user.wav",
        "-o",
        "agent.wav",
        "--speak",
        "loquent/voice",
        "--model",
        "tiny.en",
    ]
    assert main(command) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["you", "agent", "you", "agent"]
    assert lines[0] == "you: What will the weather be like?"
    heard = lines[1].removeprefix("agent: ")
    assert LONG.startswith(heard)
    assert heard != LONG
    assert lines[3] == "agent: Fine."
    last = chat_server.asked[-1]["messages"]
    assert last[0]["content"] == "Be kind."
    assert last[2] == {"role": "assistant", "content": heard}
    assert chat_server.headers[0]["Authorization"] == "Bearer sesame"
    assert "sesame" not in shown.out + shown.err
    spoken = read_audio("agent.wav")
    silent = np.abs(spoken.samples) < 1e-3
    at = lambda begin, end: silent[round(begin * spoken.sample_rate) : round(end * spoken.sample_rate)]  # noqa: E731
    assert at(0, 1.7).all()  # the agent does not speak before it was spoken to …
    assert not at(2.7, 4.5).all()
    second = 1.575 + 3.0  # … and is silent while the user goes on
    assert at(second + 0.4, second + 3.0).all()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "who is to reply"),
        (["--chat", "http://host"], "--chat needs --chat-model"),
        (["--chat-model", "m"], "--chat-model is for --chat"),
        (["--chat", "ftp://host", "--chat-model", "m"], "--chat: the URL of a chat server is http"),
        (["--chat", "http://host", "--chat-model", "m", "--chat-key-env", "NO_SUCH"], "there is no such environment"),
        (["--chat", "http://host", "--chat-model", "m", "--local", "x"], "exclude each other"),
        (["--local", "x", "--input", "a.wav", "--microphone", "1"], "--input and --microphone exclude each other"),
        (["--local", "x", "-o", "a.txt"], "expected a name ending in .wav"),
    ],
)
def test_what_does_not_fit_is_refused(flags, reason, capsys) -> None:
    assert main(["talk", *flags]) == 2
    assert re.search(reason, capsys.readouterr().err)


def test_a_local_model_that_is_none(tmp_path, capsys) -> None:
    assert main(["talk", "--local", str(tmp_path)]) == 1
    assert "--local" in capsys.readouterr().err


def test_a_server_offers_the_agent(chat_server, monkeypatch, capsys) -> None:
    served: dict[str, Any] = {}
    monkeypatch.setattr(
        "loquent.speech.net.server.create_app", lambda engines, *rest, **options: served.update(engines)
    )
    monkeypatch.setattr("loquent.speech.commands.serve._serve", lambda app, listener, *_: listener.close())
    common = ["serve", "--port", "0", "--max-sessions", "1", "--model", "tiny.en"]
    flags = [*common, "--chat", chat_server.url, "--chat-model", "m"]
    assert main([*flags, "--speak", "none"]) == 2
    assert "an agent that speaks" in capsys.readouterr().err
    assert main([*flags, "--speak", "loquent/voice", "--instructions", "Be kind."]) == 0
    assert [*served] == ["tiny.en", "loquent/voice", "talk"]
    talk = served["talk"].open(sample_rate=48_000)
    assert talk.conversation.instructions == "Be kind."
    talk.close()


def test_a_talk_over_a_loudspeaker(chat_server, agent_with, talking, sentence, scripted_ear) -> None:
    chat_server.script = [LONG]
    ear = scripted_ear((1.8, "What will the weather be like?"))
    talk = agent_with(ChatServer(chat_server.url, "m"), ear=ear).open(sample_rate=16_000, patient=True)
    card, file = Card(RATE), io.StringIO()
    loudspeaker = Loudspeaker(card, RATE)
    shown = Shown(file, talk, loudspeaker)
    audio = talking(sentence[:20_800], 2.5, sentence[20_800:30_000])
    for packet in np.array_split(audio, 60):
        for event in talk.push(packet):
            shown.show(event)
    heard = talk.conversation.turns[-1]["content"]
    talk.close()
    loudspeaker.close()
    assert card.dropped == 1
    assert LONG.startswith(heard)
    lines = file.getvalue().splitlines()
    assert lines[0] == "you: What will the weather be like?"
    assert lines[1].startswith("agent: The weather is")
    assert card.written


def speech(start: float, samples: int, value: float = 1.0) -> Speech:
    filled = np.full(samples, value, np.float32)
    return Speech(
        samples=filled,
        sample_rate=100,
        text="",
        span=(0, 0),
        start=start,
        end=start + samples / 100,
        emission_time=start,
    )


def test_a_recording_has_what_was_heard_at_its_time() -> None:
    written: list[np.ndarray] = []
    recorder = Recorder(written.append, 100)
    for event in (
        speech(0.2, 10),
        speech(0.3, 20, 2.0),
        Interrupted(text="", span=(0, 0), heard=0.35, emission_time=0.35),
        speech(0.5, 5, 3.0),
        Marker(id="", emission_time=0.6),
        speech(0.6, 5, 4.0),
    ):
        recorder.show(event)
    recorder.close()
    expected = [0] * 20 + [1] * 10 + [2] * 5 + [0] * 15 + [3] * 5 + [0] * 5 + [4] * 5
    assert np.concatenate(written).tolist() == expected


class Card:
    """A sound card that takes its time only when it is told so."""

    def __init__(self, rate: int = 100) -> None:
        self.rate = rate
        self.written: list[float] = []
        self.latency = 0.05
        self.dropped = 0

    @property
    def played_s(self) -> float:
        return max(0.0, len(self.written) / self.rate - self.latency)

    def write(self, samples: np.ndarray) -> None:
        self.written += samples.tolist()

    def drop(self) -> float:
        self.dropped += 1
        self.written = self.written[: round(self.played_s * self.rate)]
        return len(self.written) / self.rate


def test_a_loudspeaker_plays_and_tells_where_it_stopped() -> None:
    card = Card()
    loudspeaker = Loudspeaker(card, 100)
    loudspeaker.play(speech(4.0, 30))
    while len(card.written) < 30:
        pass
    assert loudspeaker.stop() == pytest.approx(4.25)  # what the card has not played was not heard
    loudspeaker.play(speech(6.0, 10, 2.0))
    loudspeaker.close()
    assert card.dropped == 1
    assert card.written == [1.0] * 25 + [2.0] * 10
