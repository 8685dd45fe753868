"""The streaming Conformer beside NeMo's, with the same random weights and the same streams, all measured in this run.

    PYTHONPATH=<checkout of NVIDIA-NeMo/NeMo> python benchmarks/conformer_nemo.py [--size 114M] [--streams 1 8 32]

NeMo (2.5) has to be importable, with what it needs; its step is `ConformerEncoder.cache_aware_stream_step`. Streams are
brought to full caches first, six chunks of the largest look-ahead, and go on with each look-ahead in turn. From the
first chunk to the last the outputs must agree: a line without agreement gives no speed. The two take turns, and the
best turn of each counts. NeMo's type checks are off, and cutting out the frames it wants is not on its clock.

With ``--onnx`` there is a third: NeMo's own export of that step, run by onnxruntime, as sherpa-onnx does.

Beside the times: bytes of state that one stream needs, and multiply-adds per second of audio in each layout, counted
by `multiply_adds` from the shapes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from loquent.asr.conformer.encoder import ConformerConfig
from loquent.asr.conformer.model import ConformerModel, ConformerModelConfig
from loquent.asr.conformer.nemo_conversion import to_nemo

SIZES = {
    "small": ConformerConfig(dim=176, layers=16, heads=4, subsampling_channels=176),
    "114M": ConformerConfig(dim=512, layers=17, heads=8, subsampling_channels=256),
}
FRAME_S = 0.08  # of audio for one encoder frame
MEL_CACHE = 9  # mel frames that NeMo computes its subsampling from again
TOLERANCE = 1e-4
WARM_UP = 6  # chunks


def main() -> None:
    """Print a table of costs and one of times for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=2.0, help="at least so long, or 40 turns, for each line")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--onnx", action="store_true", help="NeMo's export in onnxruntime as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        for size in options.size:
            config = SIZES[size]
            model = ConformerModel(ConformerModelConfig(config, vocabulary=32)).eval()
            for layer in model.encoder.layers:
                nn.init.normal_(layer.attention.content_bias)
                nn.init.normal_(layer.attention.distance_bias)
            weights = sum(parameter.numel() for parameter in model.encoder.parameters())
            print(f"\n{size}: {weights / 1e6:.0f} M parameters, {options.threads} threads, float32")
            costs(model, config)
            compare(model, nemo_encoder(model), options)


def nemo_encoder(model: ConformerModel) -> Any:
    """NeMo's encoder with the weights of ours."""
    try:
        from nemo.collections.asr.modules import ConformerEncoder
        from nemo.core.classes.common import typecheck
    except ImportError as error:
        raise SystemExit(
            f"NeMo cannot be imported ({error}); put a checkout on PYTHONPATH, with what it needs"
        ) from error
    typecheck.set_typecheck_enabled(False)
    settings, weights = to_nemo(model.config, model.state_dict())
    encoder = ConformerEncoder(**{name: value for name, value in settings["encoder"].items() if name != "_target_"})
    prefix = "encoder."
    encoder.load_state_dict(
        {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    )
    return encoder.eval()


class Ours:
    """Streams in our layout."""

    def __init__(self, model: ConformerModel, streams: int) -> None:
        self.encoder, self.rows = model.encoder, torch.arange(streams)
        self.state = self.encoder.initial_state(streams)

    def look_ahead(self, lookahead: int) -> None:
        """Change the look-ahead, between chunks."""
        self.encoder.set_lookahead(self.state, self.rows, lookahead)

    def step(self, mel: Tensor) -> Callable[[], Tensor]:
        """What encodes new frames (B, T, F) to (B, R + 1, dim)."""
        return lambda: self.encoder.step(mel, self.state, self.rows).data


class Nemo:
    """The same streams in NeMo's."""

    def __init__(self, encoder: Any, streams: int) -> None:
        self.encoder, self.streams = encoder, streams
        self.look_ahead(encoder.att_context_size_all[0][1])
        self.caches = encoder.get_initial_cache_state(batch_size=streams)
        self.heard: Tensor | None = None  # the last mel frames

    def look_ahead(self, lookahead: int) -> None:
        """Change the look-ahead, between chunks."""
        self.encoder.set_default_att_context_size([self.encoder.att_context_size_all[0][0], lookahead])

    def step(self, mel: Tensor) -> Callable[[], Tensor]:
        """What encodes new frames (B, T, F) to (B, R + 1, dim)."""
        first = self.heard is None
        stretch = mel if self.heard is None else torch.cat([self.heard, mel], dim=1)
        self.heard = stretch[:, -MEL_CACHE:]
        signal = stretch.transpose(1, 2).contiguous()
        length = torch.full((self.streams,), stretch.shape[1])

        def run() -> Tensor:
            encoded, _, *self.caches = self.encoder.cache_aware_stream_step(
                processed_signal=signal,
                processed_signal_length=length,
                cache_last_channel=self.caches[0],
                cache_last_time=self.caches[1],
                cache_last_channel_len=self.caches[2],
                keep_all_outputs=True,
                drop_extra_pre_encoded=0 if first else 2,
            )
            return encoded.transpose(1, 2)

        return run


class Onnx:
    """The same streams in onnxruntime, which takes over from NeMo when the look-ahead changes: an export has one."""

    def __init__(self, nemo: Nemo, sessions: dict[int, Any]) -> None:
        self.nemo, self.sessions = nemo, sessions

    def look_ahead(self, lookahead: int) -> None:
        """Change the look-ahead, between chunks, after NeMo has."""
        self.session = self.sessions[lookahead]
        channel, steps, length = self.nemo.caches
        self.caches = [channel.transpose(0, 1).numpy().copy(), steps.transpose(0, 1).numpy().copy(), length.numpy()]
        self.heard = self.nemo.heard

    def step(self, mel: Tensor) -> Callable[[], Tensor]:
        """What encodes new frames (B, T, F) to (B, R + 1, dim)."""
        assert self.heard is not None
        stretch = torch.cat([self.heard, mel], dim=1)
        self.heard = stretch[:, -MEL_CACHE:]
        signal = stretch.transpose(1, 2).contiguous().numpy()
        length = np.full(len(signal), signal.shape[2], np.int64)
        names = [one.name for one in self.session.get_inputs()]

        def run() -> Tensor:
            given = dict(zip(names, (signal, length, *self.caches), strict=True))
            encoded, _, *self.caches = self.session.run(None, given)
            return torch.from_numpy(encoded).transpose(1, 2)

        return run


def onnx_sessions(encoder: Any, lookaheads: Sequence[int], threads: int) -> dict[int, Any]:
    """NeMo's exports, one for each look-ahead."""
    import onnxruntime

    settings, sessions = onnxruntime.SessionOptions(), {}
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow the others' turns
    encoder.export_cache_support = True
    for lookahead in lookaheads:
        encoder.set_default_att_context_size([encoder.att_context_size_all[0][0], lookahead])
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/encoder.onnx"
            with patch("torch.onnx.export", partial(torch.onnx.export, dynamo=False)):  # NeMo was written for that
                encoder.export(file)
            sessions[lookahead] = onnxruntime.InferenceSession(file, settings, ["CPUExecutionProvider"])
    return sessions


def compare(model: ConformerModel, encoder: Any, options: argparse.Namespace) -> None:
    """Print the times of a chunk: ours, and of the others how many times as long they take."""
    config = model.config.encoder
    lookaheads = sorted(config.lookaheads)
    sessions = onnx_sessions(encoder, lookaheads, options.threads) if options.onnx else {}
    others = ["NeMo", "ONNX"] if options.onnx else ["NeMo"]
    print(
        "look-ahead  streams   chunk of   a chunk takes, ms"
        + " " * (18 * len(others) - 6)
        + "for a second of audio, ms"
    )
    columns = "".join(f"{name:>8}   ratio" for name in others)
    print(f"                      audio, ms    ours  {columns}     ours" + "".join(f"{name:>9}" for name in others))
    for streams in options.streams:
        nemo = Nemo(encoder, streams)
        sides: dict[str, Ours | Nemo | Onnx] = {"ours": Ours(model, streams), "NeMo": nemo}
        worst = 0.0
        for chunk in range(WARM_UP):
            frames = 8 * lookaheads[-1] + 1 if chunk == 0 else 8 * (lookaheads[-1] + 1)
            worst = max(worst, turn(sides, streams, frames, config.n_mels)[0])
        if options.onnx:
            sides["ONNX"] = Onnx(nemo, sessions)
        for lookahead in lookaheads:
            for side in sides.values():
                side.look_ahead(lookahead)
            best, began = dict.fromkeys(sides, float("inf")), time.perf_counter()
            for taken in range(41):  # the first is not counted
                error, times = turn(sides, streams, 8 * (lookahead + 1), config.n_mels)
                worst = max(worst, error)
                if taken:
                    best = {name: min(best[name], times[name]) for name in sides}
                if taken > 2 and time.perf_counter() - began > options.seconds:
                    break
            line = f"{lookahead:10}  {streams:7}   {(lookahead + 1) * FRAME_S * 1e3:8.0f}"
            if worst > TOLERANCE:
                raise SystemExit(f"{line}   the outputs differ by {worst:.2g}; no speed is worth that")
            ours, audio_s = best["ours"], streams * (lookahead + 1) * FRAME_S
            line += f"   {ours * 1e3:7.1f}"
            line += "".join(f"  {best[name] * 1e3:7.1f}  {best[name] / ours:5.1f} ×" for name in others)
            print(line + "".join(f"  {one * 1e3 / audio_s:7.1f}" for one in best.values()), flush=True)
        print(f"            {streams:7}   largest difference of an output {worst:.1e}")


def turn(sides: dict[str, Any], streams: int, frames: int, n_mels: int) -> tuple[float, dict[str, float]]:
    """One chunk for all: the largest difference of their outputs, and the time each took in seconds."""
    mel = 2.5 * torch.randn(streams, frames, n_mels) - 8
    outputs, times = [], {}
    for name, side in sides.items():
        run = side.step(mel)
        began = time.perf_counter()
        outputs.append(run())
        times[name] = time.perf_counter() - began
    ours, *others = outputs
    for other in others:
        if ours.shape != other.shape:
            raise SystemExit(f"one gives {tuple(ours.shape)}, the other {tuple(other.shape)}")
    return max(float((ours - other).abs().max()) for other in others), times


@dataclass(frozen=True)
class Cost:
    """Million multiply-adds for a second of audio of one stream alone."""

    subsampling: float
    projections: float  # of new frames: feed-forward, convolution, queries and output
    keys: float  # keys and values
    distances: float  # projections of relative positions
    attention: float  # scores and weighted sums

    @property
    def total(self) -> float:
        return self.subsampling + self.projections + self.keys + self.distances + self.attention


def multiply_adds(config: ConformerConfig, lookahead: int, nemo: bool) -> Cost:
    """Count the multiply-adds of a stream whose caches are full.

    NeMo computes the subsampling of 9 earlier mel frames again, projects keys and values of the whole cache, which
    holds layer inputs, and projects the distances in every step. Ours caches a stage's inputs, keys and values, and
    the projected distances.
    """
    dim, frames, kept = config.dim, lookahead + 1, config.left_context
    keys, chunks = kept + frames, 1 / (frames * FRAME_S)
    channels, bins, steps = config.subsampling_channels, config.n_mels, 8 * frames + (MEL_CACHE if nemo else 0)
    subsampling = 0
    for stage in range(3):
        steps, bins = steps // 2 + (1 if nemo else 0), bins // 2 + 1
        subsampling += steps * bins * channels * (9 + (channels if stage else 0))
    subsampling += steps * bins * channels * dim
    projections = frames * (4 * config.feed_forward * dim**2 + (3 + 2) * dim**2 + config.conv_kernel * dim)
    spans = 2 * keys - 1 if nemo else kept + 2 * max(config.lookaheads) + 1
    per_layer = (
        projections,
        2 * dim**2 * (keys if nemo else frames),
        dim**2 * spans if nemo else 0,
        frames * dim * (2 * keys + spans),
    )
    return Cost(*(count * chunks / 1e6 for count in (subsampling, *(config.layers * part for part in per_layer))))


def costs(model: ConformerModel, config: ConformerConfig) -> None:
    """Print what a stream costs in either layout."""
    ours = model.encoder.initial_state(1).nbytes
    nemo = 4 * (config.layers * config.dim * (config.left_context + config.conv_kernel - 1) + MEL_CACHE * config.n_mels)
    print(f"state of a stream: ours {ours / 1e6:.2f} MB, NeMo {nemo / 1e6:.2f} MB")
    print("million multiply-adds for a second of audio, one stream (in parentheses: keys and values)")
    for lookahead in sorted(config.lookaheads):
        a, b = (multiply_adds(config, lookahead, nemo) for nemo in (False, True))
        print(
            f"  look-ahead {lookahead:2}: ours {a.total:8.0f} ({a.keys:6.0f}), NeMo {b.total:8.0f} ({b.keys:6.0f}), "
            f"{b.total / a.total:.1f} × as many"
        )


if __name__ == "__main__":
    main()
