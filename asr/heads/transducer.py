"""The transducer (RNN-T) head: a predictor reads the tokens so far, a joiner combines it with an encoder frame.

Tokens are 0 … V - 1 and the blank is V. The predictor's embedding has a row for the blank that is always zero: it is
what the predictor reads before the first token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.best_tokens import linear_argmax
from loquent.kernels.transducer_loss import transducer_loss
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.state import State, check_range
from loquent.speech.sizes import check_fraction, check_sizes

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


@dataclass(frozen=True)
class TransducerConfig:
    """Shape of a transducer head.

    Raises:
        ValueError: an option out of range.
    """

    vocabulary: int  # tokens, without the blank
    encoder_dim: int
    predictor: Literal["lstm", "stateless"] = "lstm"
    predictor_dim: int = 640
    predictor_layers: int = 1  # of the LSTM
    context: int = 2  # tokens that a stateless predictor sees
    joint_dim: int = 640
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    max_symbols: int = 10  # tokens that a search may emit at one frame
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.predictor not in ("lstm", "stateless"):
            raise ValueError(f"predictor must be 'lstm' or 'stateless', got {self.predictor!r}")
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {self.activation!r}")
        check_sizes(self, _LARGEST)
        check_fraction("dropout", self.dropout)


# Far beyond any transducer, and small enough to be built.
_LARGEST = {
    "vocabulary": 2**20,
    "encoder_dim": 2**13,
    "predictor_dim": 2**13,
    "predictor_layers": 16,
    "context": 2**8,
    "joint_dim": 2**13,
    "max_symbols": 2**10,
}


@dataclass
class LSTMState(State):
    """What an LSTM predictor remembers."""

    hidden: Tensor  # (S, layers, D)
    cell: Tensor  # (S, layers, D)


@dataclass
class ContextState(State):
    """What a stateless predictor remembers: the last tokens, oldest first, plus 1; 0 stands before the first token."""

    tokens: Tensor  # (S, context) int64
    vocabulary: int  # tokens that there are, without the blank

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("tokens", self.tokens, 0, self.vocabulary)


class LSTMPredictor(nn.Module):
    """Embedding and LSTM, as NeMo's `RNNTDecoder` with `blank_as_pad`."""

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__()
        dim, layers = config.predictor_dim, config.predictor_layers
        self.start = config.vocabulary
        self.embedding = nn.Embedding(config.vocabulary + 1, dim, padding_idx=self.start)
        self.lstm = nn.LSTM(dim, dim, layers, batch_first=True, dropout=config.dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():
            for layer in range(layers):  # a forget gate that starts open: texts are short
                getattr(self.lstm, f"bias_ih_l{layer}")[dim : 2 * dim] = 1.0
                getattr(self.lstm, f"bias_hh_l{layer}")[dim : 2 * dim] = 0.0

    def initial_state(self, slots: int) -> LSTMState:
        """State before the start token."""
        zeros = self.embedding.weight.new_zeros(slots, self.lstm.num_layers, self.lstm.hidden_size)
        return LSTMState(zeros, zeros.clone())

    def forward(self, targets: Tensor) -> Tensor:
        """Outputs (B, U + 1, D) after the start token and after each of the targets (B, U)."""
        embedded = self.embedding(F.pad(targets, (1, 0), value=self.start))
        # Not under autocast: few processors have an LSTM in bfloat16, and this one is small.
        with torch.autocast(embedded.device.type, enabled=False):
            out, _ = self.lstm(embedded)
        return self.dropout(out)

    def advance(self, tokens: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Read one token (N,) each: the outputs (N, D) after it, and the states of N rows that follow ``state``."""
        x, hidden, cell = self.embedding(tokens), [], []
        for layer in range(self.lstm.num_layers):
            names = (f"{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            before = (state.hidden[:, layer], state.cell[:, layer])
            x, c = torch.lstm_cell(x, before, *(getattr(self.lstm, name) for name in names))
            hidden.append(x)
            cell.append(c)
        return x, LSTMState(torch.stack(hidden, 1), torch.stack(cell, 1))


class StatelessPredictor(nn.Module):
    """Embedding and a depthwise convolution over the last tokens.

    Source: Ghodsi et al. 2020, "RNN-transducer with stateless prediction network"; the convolution as in icefall.
    """

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__()
        self.start, self.context = config.vocabulary, config.context
        dim = config.predictor_dim
        self.embedding = nn.Embedding(config.vocabulary + 1, dim, padding_idx=self.start)
        self.conv = nn.Conv1d(dim, dim, config.context, groups=dim, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def initial_state(self, slots: int) -> ContextState:
        """State before the start token."""
        device = self.embedding.weight.device
        return ContextState(torch.zeros(slots, self.context, dtype=torch.long, device=device), self.start)

    def forward(self, targets: Tensor) -> Tensor:
        """Outputs (B, U + 1, D) after the start token and after each of the targets (B, U)."""
        embedded = self.embedding(F.pad(targets, (self.context, 0), value=self.start))
        return self.dropout(F.relu(self.conv(embedded.transpose(1, 2))).transpose(1, 2))

    def advance(self, tokens: Tensor, state: ContextState) -> tuple[Tensor, ContextState]:
        """Read one token (N,) each: the outputs (N, D) after it, and the states of N rows that follow ``state``."""
        newest = torch.where(tokens == self.start, 0, tokens + 1)
        seen = torch.cat([state.tokens[:, 1:], newest[:, None]], dim=1)
        embedded = self.embedding(torch.where(seen == 0, self.start, seen - 1))
        return F.relu((embedded * self.conv.weight[:, 0].T).sum(1)), ContextState(seen, state.vocabulary)


class Joiner(nn.Module):
    """Combines frames and predictor outputs; both are projected once and then added, as in NeMo's `RNNTJoint`."""

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__()
        self.enc = Linear(config.encoder_dim, config.joint_dim)
        self.pred = Linear(config.predictor_dim, config.joint_dim)
        self.out = Linear(config.joint_dim, config.vocabulary + 1)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = config.activation

    def forward(self, enc: Tensor, pred: Tensor) -> Tensor:
        """Logits (…, V + 1) of projected frames and predictor outputs (…, joint_dim), which broadcast."""
        return self.out(self.dropout(_ACTIVATIONS[self.activation](enc + pred)))

    def best(self, enc: Tensor, pred: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable id for each of those, and its log-probability: int64 and float32 (…)."""
        hidden = self.dropout(_ACTIVATIONS[self.activation](enc + pred))
        return linear_argmax(hidden, self.out.weight, self.out.bias)


class Transducer(nn.Module):
    """Predictor, joiner and their loss.

    Source: Graves 2012 (arXiv 1211.3711).
    """

    predictor: LSTMPredictor | StatelessPredictor

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__()
        self.config = config
        self.predictor = LSTMPredictor(config) if config.predictor == "lstm" else StatelessPredictor(config)
        self.joiner = Joiner(config)

    @property
    def vocabulary(self) -> int:
        """Number of tokens, without the blank."""
        return self.config.vocabulary

    @property
    def blank(self) -> int:
        """Id of the blank."""
        return self.config.vocabulary

    def forward(self, encoded: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, T, U + 1, V + 1) of what follows the first u targets (B, U) at each frame (B, T, encoder_dim)."""
        enc = self.joiner.enc(encoded)[:, :, None]
        pred = self.joiner.pred(self.predictor(targets))[:, None]
        return self.joiner(enc, pred)

    def loss(self, encoded: Tensor, length: Tensor, targets: Tensor, target_length: Tensor) -> Tensor:
        """Minus the log-probability of each text, (B,) nats.

        Args:
            encoded: (B, T, encoder_dim).
            length: (B,) int64 frames of each row, at least 1.
            targets: (B, U) int64; what lies beyond a row's length is ignored.
            target_length: (B,) int64.
        """
        inside = torch.arange(targets.shape[1], device=targets.device) < target_length[:, None]
        targets = torch.where(inside, targets, 0)
        return transducer_loss(self(encoded, targets), targets, length, target_length)

    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As the predictor's `advance`, with its output projected for the joiner: (N, joint_dim)."""
        out, state = self.predictor.advance(tokens, state)
        return self.joiner.pred(out), state
