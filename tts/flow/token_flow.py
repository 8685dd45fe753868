"""Speech tokens to a mel spectrogram, in the voice of a prompt: the flow of CosyVoice 2 and 3, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.linear import Linear
from loquent.speech.nn.state import State, check_range
from loquent.speech.nn.streaming import Chunk, StreamingModule, as_chunk, as_rows
from loquent.tts.flow.dit import DiffusionTransformer, DiTConfig
from loquent.tts.flow.encoder import EncoderConfig, RepeatConfig, RepeatEncoder, UpsampleEncoder
from loquent.tts.flow.estimator import CompactConfig, CompactEstimator
from loquent.tts.flow.incremental import Estimator
from loquent.tts.flow.lm import LanguageModelConfig, LanguageModelEstimator
from loquent.tts.flow.masks import ChunkMask
from loquent.tts.flow.noise import Noise, NoiseTable
from loquent.tts.flow.solver import FlowSolver, SolverState
from loquent.tts.flow.unet import CausalUNet, UNetConfig

EstimatorConfig = CompactConfig | DiTConfig | LanguageModelConfig | UNetConfig


def build_estimator(config: EstimatorConfig) -> Estimator:
    """An estimator with random weights."""
    match config:
        case CompactConfig():
            return CompactEstimator(config)
        case DiTConfig():
            return DiffusionTransformer(config)
        case LanguageModelConfig():
            return LanguageModelEstimator(config)
        case UNetConfig():
            return CausalUNet(config)


@dataclass(frozen=True)
class TokenFlowConfig:
    """A `TokenFlow`; as in CosyVoice 2 unless given.

    encoder:    `EncoderConfig` as in CosyVoice 2, or `RepeatConfig` as in CosyVoice 3.
    estimator:  of any kind; its conditions are three times its bins: encoder, speaker, prompt.
    vocabulary: number of speech tokens.
    speaker:    channels of a speaker's embedding.
    """

    encoder: EncoderConfig | RepeatConfig = field(default_factory=EncoderConfig)
    estimator: EstimatorConfig = field(default_factory=UNetConfig)
    vocabulary: int = 6561
    speaker: int = 192

    def __post_init__(self) -> None:
        bins = self.estimator.bins
        if self.estimator.conditions != 3 * bins:
            raise ValueError(
                f"an estimator of {bins} bins needs {3 * bins} conditions, got {self.estimator.conditions}"
            )
        if isinstance(self.encoder, RepeatConfig) and self.encoder.channels != bins:
            raise ValueError(f"repeated tokens have {self.encoder.channels} channels, the estimator {bins} bins")


@dataclass(frozen=True)
class Inference:
    """How a flow is solved; as in CosyVoice unless given, but for the bound to the left.

    mask:   in tokens, each of which is two frames. CosyVoice sees all of the past; a stream remembers ``left`` tokens.
    steps:  of the solver. guidance: w of classifier-free guidance.
    prompt: frames that a voice prompt may have.
    """

    mask: ChunkMask = field(default_factory=lambda: ChunkMask(25, 50))
    steps: int = 10
    guidance: float = 0.7
    prompt: int = 1500


@dataclass
class TokenFlowState(State):
    """Of encoder and solver; the voice, and how many frames have been encoded."""

    encoder: State
    solver: SolverState
    speaker: Tensor  # (S, E)
    prompt: Tensor  # (S, P, M)
    prompted: Tensor  # (S,) int64, frames of the prompt
    frame: Tensor  # (S,) int64

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("prompted", self.prompted, 0, self.prompt.shape[1])


class TokenFlow(StreamingModule):
    """Speech tokens (B, T) int64 to log-mel frames (B, 2T, M).

    A stream begins with the tokens of its voice prompt, if it has one, and so do its frames: those of the prompt are
    to be left out. Chunks are counted from the first token of the prompt, as upstream counts them.

    Equals upstream's whole pass under its chunk mask (``streaming=True``) for a left context without a bound, and for
    streams that are no longer than the bound; with `FULL` as mask, its whole pass without. Upstream's own stream ends
    differently: its last call forgets ``streaming`` and sees everything, earlier frames through new eyes.

    Source: `CausalMaskedDiffWithXvec` and `CausalMaskedDiffWithDiT`, upstream cosyvoice/flow/flow.py.
    """

    def __init__(self, config: TokenFlowConfig, how: Inference | None = None, noise: Noise | None = None) -> None:
        super().__init__()
        how = how or Inference()
        bins, channels = config.estimator.bins, config.encoder.channels
        self.config, self.how = config, how
        self.embedding = nn.Embedding(config.vocabulary, channels)
        self.speaker = Linear(config.speaker, bins)
        self.encoder: UpsampleEncoder | RepeatEncoder
        self.project: Linear | None = None
        if isinstance(config.encoder, RepeatConfig):
            self.encoder = RepeatEncoder(config.encoder)
        else:
            self.encoder = UpsampleEncoder(config.encoder, how.mask)
            self.project = Linear(channels, bins)
        self.solver = FlowSolver(
            build_estimator(config.estimator),
            noise or NoiseTable(bins),
            how.mask.times(2),
            steps=how.steps,
            guidance=how.guidance,
        )

    def forward(self, tokens: Tensor, speaker: Tensor | None = None, prompt: Tensor | None = None) -> Tensor:
        """Whole streams.

        Args:
            tokens: (B, T), the prompt's first. speaker: (B, E) embeddings, zero unless given.
            prompt: (B, P, M) frames of the prompt, none unless given.
        """
        batch, bins = len(tokens), self.solver.estimator.bins
        mu = self._project(self.encoder(self._embed(tokens)))
        if speaker is None:
            speaker = mu.new_zeros(batch, self.config.speaker)
        given = mu.new_zeros(batch, 0, bins) if prompt is None else prompt[:, : mu.shape[1]]
        given = F.pad(given, (0, 0, 0, mu.shape[1] - given.shape[1]))
        return self.solver(self._condition(mu, speaker, given))

    def initial_state(self, batch: int) -> TokenFlowState:
        """No voice: speaker zero, no prompt."""
        like, bins = self.speaker.weight, self.solver.estimator.bins
        return TokenFlowState(
            self.encoder.initial_state(batch),
            self.solver.initial_state(batch),
            like.new_zeros(batch, self.config.speaker),
            like.new_zeros(batch, self.how.prompt, bins),
            torch.zeros(batch, dtype=torch.long, device=like.device),
            torch.zeros(batch, dtype=torch.long, device=like.device),
        )

    def prime(self, state: TokenFlowState, rows: Tensor, speaker: Tensor, prompt: Tensor, lengths: Tensor) -> None:
        """Give slots that were reset their voice; the tokens of the prompt are then the first ones of the stream.

        Args:
            rows: (N,) int64 slots. speaker: (N, E) embeddings. prompt: (N, P, M) frames. lengths: (N,) int64, of each.

        Raises:
            ValueError: the prompt is longer than `Inference.prompt`.
        """
        if prompt.shape[1] > self.how.prompt:
            raise ValueError(
                f"a prompt of {prompt.shape[1]} frames, at most {self.how.prompt} are remembered; cut it, "
                "or raise Inference.prompt"
            )
        state.speaker[rows] = speaker
        state.prompt[rows] = F.pad(prompt, (0, 0, 0, self.how.prompt - prompt.shape[1]))
        state.prompted[rows] = lengths

    def step(self, x: Chunk | Tensor, state: TokenFlowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Frames of the chunks of tokens that are complete, with their look-ahead."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        encoder: StreamingModule = self.encoder
        chunk = encoder.step(chunk.with_data(self._embed(chunk.data)), state.encoder, rows)
        mu, frame = self._project(chunk.data), state.frame[rows]
        at = frame[:, None] + torch.arange(mu.shape[1], device=mu.device)
        place = at.clamp(max=self.how.prompt - 1)
        given = torch.where((at < state.prompted[rows][:, None])[:, :, None], state.prompt[rows[:, None], place], 0)
        state.frame[rows] = frame + chunk.length
        condition = self._condition(mu, state.speaker[rows], given)
        return self.solver.step(chunk.with_data(condition), state.solver, rows)

    def inputs_for(self, outputs: int) -> int:
        """Whole chunks and their look-ahead."""
        return self.encoder.inputs_for(self.solver.inputs_for(outputs))

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens.clamp(0, self.config.vocabulary - 1))  # padding may be anything

    def _project(self, x: Tensor) -> Tensor:
        return x if self.project is None else self.project(x)

    def _condition(self, mu: Tensor, speaker: Tensor, prompt: Tensor) -> Tensor:
        voice = self.speaker(F.normalize(speaker, dim=1))[:, None].expand(-1, mu.shape[1], -1)
        return torch.cat([mu, voice, prompt], dim=2)
