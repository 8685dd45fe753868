"""A talk as bytes, while no reply is under way: its three sessions, and what is between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from loquent.speech.agent.options import TalkOptions
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.snapshot import MOST, Unpacked, foreign, pack_parts, parts_of, unpack

KIND = "a snapshot of a talk"


@dataclass(frozen=True)
class SavedReplying:
    """Of `Replying`: the playback, the position in the voice's text, and the last reply.

    given: speech of the last reply, as `Given`.
    last:  its beginning in the voice's text, its text, and how many characters of it were heard.
    goes_on: whether the user has just broken in on it.
    """

    begin: float
    end: float
    voice_end: float
    given: tuple[tuple[float, float, float, int], ...]
    fed: int
    answers: int
    last: tuple[int, str, int] | None
    goes_on: bool

    def __post_init__(self) -> None:
        times = [self.begin, self.end, self.voice_end, *(time for one in self.given for time in one[:3])]
        places = [self.fed, self.answers, *(one[3] for one in self.given)]
        if not all(0 <= value <= MOST for value in (*times, *places)) or (self.goes_on and self.last is None):
            raise ValueError("not the speaking half of a talk")
        begin, text, heard = self.last or (0, "", 0)
        if not (-len(text) <= begin <= MOST and 0 <= heard <= len(text)):
            raise ValueError("not a reply of a talk")


@dataclass(frozen=True)
class SavedTalk:
    """Of `Talk`, beside its sessions.

    turns:      roles and texts of the conversation.
    sequences:  numbers of the next events, by stages.
    utterances: text, start and end of each.
    open:       text that may become one.
    """

    instructions: str
    turns: tuple[tuple[str, str], ...]
    options: TalkOptions
    sequences: dict[str, int]
    utterances: tuple[tuple[str, float, float], ...]
    open: str
    speaking: bool
    silent_since: float
    guesses: int
    replying: SavedReplying

    def __post_init__(self) -> None:
        times = [self.silent_since, *(time for one in self.utterances for time in one[1:])]
        if not all(0 <= value <= MOST for value in (*times, *self.sequences.values(), self.guesses)):
            raise ValueError("not the times and counts of a talk")
        if not {role for role, _ in self.turns} <= {"user", "assistant"}:
            raise ValueError("not the turns of a talk")


def captured(stream: str, sessions: Mapping[str, Callable[[], bytes]], talk: SavedTalk) -> Callable[[], bytes]:
    """What puts the snapshots of the sessions and the rest together, in any thread."""
    return pack_parts({"stream": stream, "talk": asdict(talk)}, sessions)


def unpacked(snapshot: bytes | Unpacked, stages: Mapping[str, object]) -> tuple[str, dict[str, bytes], SavedTalk]:
    """Inverse of `captured`.

    Args:
        stages: by the names that there have to be.

    Raises:
        ValueError: it is no snapshot of a talk, or damaged.
    """
    header, tensors = unpack(snapshot)
    parts = parts_of(tensors, stages, KIND)
    with foreign(KIND):
        return header.text("stream"), parts, parse_options(SavedTalk, header.mapping("talk"), "talk")
