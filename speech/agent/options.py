"""The options of a talk."""

from __future__ import annotations

from dataclasses import dataclass

from loquent.speech.agent.turn_end import TurnOptions


@dataclass(frozen=True)
class TalkOptions(TurnOptions):
    """How an agent takes turns. See `TurnOptions` for the silences.

    speculate:   prepare a reply as soon as the end of a turn is likely.
    half_duplex: do not listen while the agent speaks, for loudspeakers that the microphone hears.
    """

    speculate: bool = True
    half_duplex: bool = False


INSTRUCTIONS = (
    "You are talking with somebody by voice. Answer in one or two short sentences of plain spoken English, without "
    "lists or markup. What you are told comes from a speech recogniser and may have mistakes."
)
