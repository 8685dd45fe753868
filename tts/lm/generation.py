"""Speech tokens from text tokens: streams of any number in one batch, each by its own script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from loquent.speech.lm.decoder import DecoderState
from loquent.speech.nn.streaming import Chunk
from loquent.tts.lm.model import SpeechLanguageModel
from loquent.tts.lm.sampling import RepetitionAwareSampling, draws
from loquent.tts.lm.script import Script


class SpeechTokenGenerator:
    """Draws speech tokens; every one is final.

    What a stream draws is a function of its text, its prompt and its seed: of the latter by counters, so neither batch
    mates nor the times at which text comes change anything. A stream is a slot of the state and a `Script`.

    Args:
        model: in evaluation mode.
        sampling: how a token is drawn.
        least, most: see `Script`.
    """

    def __init__(
        self,
        model: SpeechLanguageModel,
        sampling: RepetitionAwareSampling | None = None,
        *,
        least: float = 2.0,
        most: float = 20.0,
    ) -> None:
        self.model, self.sampling = model, sampling or RepetitionAwareSampling()
        self.least, self.most = least, most

    def initial_state(self, slots: int) -> DecoderState:
        """Keys and values of streams that have not begun."""
        return self.model.decoder.initial_state(slots)

    def begin(
        self,
        prompt_text: Iterable[int] = (),
        prompt_speech: Iterable[int] = (),
        *,
        in_turns: bool = True,
        seed: int = 0,
    ) -> Script:
        """A stream with the prompt of a voice; ``in_turns``, speech begins before the text has ended.

        Raises:
            ValueError: a token is out of range.
        """
        return Script.begin(
            self.model.layout,
            prompt_text,
            prompt_speech,
            in_turns=in_turns,
            seed=seed,
            least=self.least,
            most=self.most,
        )

    @torch.inference_mode()
    def step(self, state: DecoderState, rows: Sequence[int], scripts: Sequence[Script]) -> list[int | None]:
        """Draw a token for each of some streams, all of which are `ready`.

        Args:
            state: changed in place.
            rows: slots of the streams, all different. scripts: of the streams, changed.

        Returns:
            For each stream a speech code, or None where it drew a mark: its script is done, or waits for text.

        Raises:
            ValueError: a stream outgrows the model's capacity; nothing has changed. Its text is to be cut.
        """
        device = state.position.device
        ids = [torch.tensor(script.due) for script in scripts]
        length = torch.tensor([len(one) for one in ids])
        slots = torch.tensor(rows, device=device)
        chunk = Chunk(
            self.model.embed(torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)),
            length.to(device),
            torch.zeros(len(rows), dtype=torch.bool, device=device),
            static=False,
        )
        hidden = self.model.decoder.step(chunk, state, slots).data
        logits = self.model.llm_decoder(hidden[torch.arange(len(rows), device=device), chunk.length - 1])
        logits = logits.masked_fill(~self._allowed(scripts).to(device), -torch.inf)
        window = self.sampling.window
        recent = [[-1] * (window - len(script.recent)) + script.recent for script in scripts]
        counts = torch.tensor([[script.seed, script.drawn] for script in scripts], device=device)
        drawn = self.sampling(logits, torch.tensor(recent, device=device), draws(counts[:, 0], counts[:, 1])).tolist()
        return [script.take(row, window) for script, row in zip(scripts, drawn, strict=True)]

    def generate(
        self,
        text: Iterable[int],
        prompt_text: Iterable[int] = (),
        prompt_speech: Iterable[int] = (),
        *,
        in_turns: bool = True,
        seed: int = 0,
    ) -> Iterator[int]:
        """Speech codes of one utterance, each as soon as the text that it depends on has come.

        Args:
            text: tokens, taken one by one.

        Raises:
            ValueError: a token is out of range, or the utterance is longer than the model's capacity.
        """
        state, script = self.initial_state(1), self.begin(prompt_text, prompt_speech, in_turns=in_turns, seed=seed)
        for token in text:
            script.push([token])
            yield from self._advance(state, script)
        script.finish()
        yield from self._advance(state, script)

    def _advance(self, state: DecoderState, script: Script) -> Iterator[int]:
        while script.ready():
            (code,) = self.step(state, [0], [script])
            if code is not None:
                yield code

    def _allowed(self, scripts: Sequence[Script]) -> Tensor:
        """(B, rows) bool: speech, and the mark that is possible."""
        layout = self.model.layout
        allowed = (torch.arange(layout.rows) < layout.codes).repeat(len(scripts), 1)
        for row, script in enumerate(scripts):
            if (mark := script.allowed()) is not None:
                allowed[row, mark] = True
        return allowed
