"""Speech to text under SimulEval.

    simuleval --agent-class loquent.translate.agents.speech.SpeechAgent --source wavs.txt --target reference.txt \\
        --source-segment-size 500 --loquent-recognizer base --loquent-language es
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np
from simuleval.agents import SpeechToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction

from loquent.speech.runtime.stream import Stream
from loquent.translate.agents.opening import add_arguments, committed, parsed_options
from loquent.translate.spoken.interpretation import TRANSLATE
from loquent.translate.spoken.interpreter import Interpreter


class SpeechAgent(SpeechToTextAgent):
    """Gets a piece of audio at a time. After the last one there is one call only, in which all that is left comes."""

    def __init__(self, args: Namespace) -> None:
        self.interpreter = Interpreter.from_pretrained(
            args.loquent_recognizer, args.loquent_model, source=args.loquent_language
        )
        self.options = parsed_options(args.loquent_options)
        super().__init__(args)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags."""
        add_arguments(parser, speech=True)

    def reset(self) -> None:
        """A new recording."""
        super().reset()
        self.stream: Stream | None = None
        self.read = 0  # samples

    def policy(self, states: Any = None) -> Action:
        """Hear what has come since the last call."""
        states = states or self.states
        samples = np.asarray(states.source[self.read :], dtype=np.float32)
        self.read += len(samples)
        text = ""
        if len(samples):
            if self.stream is None:
                self.stream = self.interpreter.session(sample_rate=states.source_sample_rate, **self.options)
            text = committed(self.stream.push(samples), TRANSLATE)
        if states.source_finished:
            text += committed(self.stream.finish(), TRANSLATE) if self.stream is not None else ""
            return WriteAction(text, finished=True)
        return WriteAction(text, finished=False) if text else ReadAction()
