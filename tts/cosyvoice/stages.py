"""Text tokens to samples, stream by stream: language model, flow and vocoder in a row, all with their state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loquent.speech.lm.decoder import DecoderState
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk
from loquent.tts.cosyvoice.voice import Voice
from loquent.tts.flow.token_flow import TokenFlow, TokenFlowState
from loquent.tts.lm.generation import SpeechTokenGenerator
from loquent.tts.lm.script import Script
from loquent.tts.vocoder.hift import Hift, HiftState

MOST_SILENT = 5  # codes of silence in a row that are spoken


@dataclass
class StagesState(State):
    """State of each stage."""

    tokens: DecoderState
    flow: TokenFlowState
    vocoder: HiftState


@dataclass
class Utterance:
    """One stream between the stages; plain values only, so that it can be copied and saved.

    script:  of the language model.
    waiting: codes that the flow has not taken yet. taken: how many it has.
    frames:  that it has given, those of the prompt too. prompted: those of the prompt.
    silent:  codes of silence in a row. spoken: whether there is anything to say.
    done:    whether all samples have been given.
    """

    script: Script
    waiting: list[int] = field(default_factory=list)
    taken: int = 0
    frames: int = 0
    prompted: int = 0
    silent: int = 0
    spoken: bool = False
    done: bool = False

    def push(self, tokens: Iterable[int]) -> None:
        """More text."""
        self.script.push(tokens)

    def finish(self) -> None:
        """No more text."""
        self.script.finish()


class Stages:
    """The stages of CosyVoice for streams that share batches.

    Args:
        generator: of speech tokens. flow: of mel frames. vocoder: of samples; all in evaluation mode.
        silent: codes of which no more than five in a row are spoken.
    """

    def __init__(
        self, generator: SpeechTokenGenerator, flow: TokenFlow, vocoder: Hift, silent: Iterable[int] = ()
    ) -> None:
        self.generator, self.flow, self.vocoder, self.silent = generator, flow, vocoder, frozenset(silent)

    def initial_state(self, slots: int) -> StagesState:
        """Pool of streams that have not begun."""
        return StagesState(
            self.generator.initial_state(slots), self.flow.initial_state(slots), self.vocoder.initial_state(slots)
        )

    @torch.inference_mode()
    def begin(self, state: StagesState, row: int, voice: Voice, *, in_turns: bool = True, seed: int = 0) -> Utterance:
        """Begin a stream in a slot, whatever was there.

        Raises:
            ValueError: the voice is another model's, or its prompt too long.
        """
        script = self.generator.begin(voice.text, voice.spoken, in_turns=in_turns, seed=seed)
        speaker, mel = self._checked(voice)
        state.reset([row])
        rows = torch.tensor([row], device=speaker.device)
        self.flow.prime(state.flow, rows, speaker, mel, torch.tensor([mel.shape[1]], device=speaker.device))
        self.vocoder.seek(state.vocoder, rows, torch.tensor([seed], device=speaker.device))
        return Utterance(script, list(voice.speech), prompted=mel.shape[1])

    def ready(self, utterance: Utterance) -> bool:
        """Whether `step` can do something for a stream."""
        return utterance.script.ready() or (utterance.script.done and not utterance.done)

    @torch.inference_mode()
    def step(self, state: StagesState, rows: Sequence[int], utterances: Sequence[Utterance]) -> list[Tensor]:
        """Draw a speech token for each stream that can go on, and turn those into samples that make a chunk.

        Args:
            state: changed in place. rows: slots, all different. utterances: of the streams, changed.

        Returns:
            For each stream new samples (N,), often none.

        Raises:
            ValueError: a stream is longer than the model's capacity. Nothing has changed.
        """
        drawing = [i for i, utterance in enumerate(utterances) if utterance.script.ready()]
        if drawing:
            scripts = [utterances[i].script for i in drawing]
            codes = self.generator.step(state.tokens, [rows[i] for i in drawing], scripts)
            for i, code in zip(drawing, codes, strict=True):
                self._take(utterances[i], code)
        samples = [state.flow.speaker.new_zeros(0) for _ in rows]
        sounding = []
        for i, utterance in enumerate(utterances):
            if utterance.script.done and not utterance.spoken:
                utterance.done = True  # a prompt alone is not spoken
            elif not utterance.done and self._has_chunk(utterance):
                sounding.append(i)
        if sounding:
            frames = self._flow(state, [rows[i] for i in sounding], [utterances[i] for i in sounding])
            slots = torch.tensor([rows[i] for i in sounding], device=frames.data.device)
            chunk = self.vocoder.step(frames, state.vocoder, slots)
            for i, new in zip(sounding, chunk.rows(), strict=True):
                samples[i] = new
                utterances[i].done = utterances[i].script.done
        return samples

    @torch.inference_mode()
    def whole(self, text: Iterable[int], voice: Voice, *, in_turns: bool = False, seed: int = 0) -> Tensor:
        """Samples (N,) of a whole text, each stage run once over all that it has: what `step` gives of it, to rounding.

        Args:
            text: tokens.

        Raises:
            ValueError: see `begin` and `step`.
        """
        speaker, mel = self._checked(voice)
        utterance = Utterance(self.generator.begin(voice.text, voice.spoken, in_turns=in_turns, seed=seed))
        state = self.generator.initial_state(1)
        utterance.push(text)
        utterance.finish()
        while utterance.script.ready():
            (code,) = self.generator.step(state, [0], [utterance.script])
            self._take(utterance, code)
        if not utterance.spoken:
            return speaker.new_zeros(0)
        codes = torch.tensor([[*voice.speech, *utterance.waiting]], device=speaker.device)
        frames = self.flow(codes, speaker, mel)[:, mel.shape[1] :]
        return self.vocoder(frames, torch.tensor([seed], device=speaker.device))[0]

    def _checked(self, voice: Voice) -> tuple[Tensor, Tensor]:
        """Speaker (1, E) and frames (1, P, F) of a voice, where the flow is."""
        like, bins = self.flow.speaker.weight, self.flow.solver.estimator.bins
        mel = torch.zeros(0, bins) if voice.mel is None else voice.mel
        if voice.speaker.shape[0] != self.flow.config.speaker or mel.shape[1] != bins:
            raise ValueError(
                f"the voice has an embedding of {voice.speaker.shape[0]} and {mel.shape[1]} mel bins, "
                f"the model {self.flow.config.speaker} and {bins}"
            )
        return voice.speaker[None].to(like), mel[None].to(like)

    def _take(self, utterance: Utterance, code: int | None) -> None:
        """Hand a code on to the flow, unless there has been silence enough."""
        if code is None:
            return
        utterance.silent = utterance.silent + 1 if code in self.silent else 0
        if utterance.silent <= MOST_SILENT:
            utterance.waiting.append(code)
            utterance.spoken = True

    def _has_chunk(self, utterance: Utterance) -> bool:
        """Whether the flow can give frames; so that it is not called for every token."""
        needed = self.flow.inputs_for(utterance.frames + 1)
        return utterance.script.done or utterance.taken + len(utterance.waiting) >= needed

    def _flow(self, state: StagesState, rows: Sequence[int], utterances: Sequence[Utterance]) -> Chunk:
        """Frames of the codes that wait, without those of the prompt."""
        device = state.flow.speaker.device
        codes = [torch.tensor(utterance.waiting) for utterance in utterances]
        chunk = Chunk(
            torch.nn.utils.rnn.pad_sequence(codes, batch_first=True).long().to(device),
            torch.tensor([len(one) for one in codes], device=device),
            torch.tensor([utterance.script.done for utterance in utterances], device=device),
            static=False,
        )
        out = self.flow.step(chunk, state.flow, torch.tensor(rows, device=device))
        kept = []
        for utterance, frames in zip(utterances, out.rows(), strict=True):
            utterance.taken += len(utterance.waiting)
            utterance.waiting.clear()
            kept.append(frames[max(utterance.prompted - utterance.frames, 0) :])
            utterance.frames += len(frames)
        length = torch.tensor([len(frames) for frames in kept], device=device)
        return Chunk(torch.nn.utils.rnn.pad_sequence(kept, batch_first=True), length, out.last, static=False)
