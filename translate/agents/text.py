"""Text to text under SimulEval.

    simuleval --agent-class loquent.translate.agents.text.TextAgent --source source.txt --target reference.txt \\
        --loquent-options policy=wait-k k=3 --quality-metrics BLEU --latency-metrics AL LAAL
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from simuleval.agents import TextToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction

from loquent.speech.runtime.session import Session
from loquent.speech.text.words import Text
from loquent.translate.agents.opening import add_arguments, committed, parsed_options
from loquent.translate.translator import Translator


class TextAgent(TextToTextAgent):
    """Gets a word at a time and writes what the policy lets out."""

    def __init__(self, args: Namespace) -> None:
        self.translator = Translator.from_pretrained(args.loquent_model)
        self.options = parsed_options(args.loquent_options)
        super().__init__(args)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags."""
        add_arguments(parser, speech=False)

    def reset(self) -> None:
        """A new sentence."""
        super().reset()
        self.session: Session = self.translator.session(**self.options)
        self.read = 0  # words

    def policy(self, states: Any = None) -> Action:
        """Read what has come since the last call."""
        states = states or self.states
        text = ""
        for word in states.source[self.read :]:
            self.read += 1
            text += committed(self.session.push(Text(f"{word} ", float(self.read))))
        if states.source_finished:
            return WriteAction(text + committed(self.session.finish()), finished=True)
        return WriteAction(text, finished=False) if text else ReadAction()
