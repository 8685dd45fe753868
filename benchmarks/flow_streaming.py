"""What a chunk of a flow costs as the stream grows: from caches, and computed anew with everything before it.

    python benchmarks/flow_streaming.py                                  # CosyVoice 2's flow, random weights
    python benchmarks/flow_streaming.py --flow cosyvoice3 --chunks 6
    python benchmarks/flow_streaming.py --flow compact --steps 2 --chunks 30 --picture flow_streaming.svg

The right column is how CosyVoice streams: each chunk is computed together with the whole prefix, and its own frames are
taken. Here the same layers do that, under the same mask, so that both give the same frames; where they do not, nothing
is printed. (Three tokens of look-ahead are computed with the prefix, which upstream spares: 6 frames of it.) Times are
those of this process, the best of several turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from loquent.speech.nn.streaming import StreamingModule
from loquent.tts.flow.dit import DiTConfig
from loquent.tts.flow.encoder import RepeatConfig
from loquent.tts.flow.estimator import CompactConfig, CompactEstimator
from loquent.tts.flow.masks import ChunkMask
from loquent.tts.flow.noise import CounterNoise
from loquent.tts.flow.solver import FlowSolver
from loquent.tts.flow.token_flow import Inference, TokenFlow, TokenFlowConfig

FRAMES_PER_SECOND = 50
TOLERANCE = 1e-3  # of values around 1, after several steps of the solver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flow", default="cosyvoice2", choices=["cosyvoice2", "cosyvoice3", "compact"])
    parser.add_argument("--chunks", type=int, default=8, help="length of the stream, in chunks")
    parser.add_argument("--chunk", type=int, help="frames of a chunk; 50, or 10 of the compact flow")
    parser.add_argument("--left", type=int, default=100, help="frames of left context")
    parser.add_argument("--steps", type=int, default=10, help="of the solver")
    parser.add_argument("--guidance", type=float, help="0.7, or 0 of the compact flow")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="an SVG to draw, too; needs matplotlib")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    flow, x, lookahead = make(options)
    chunk = options.chunk or (10 if options.flow == "compact" else 50)
    inputs = flow.inputs_for(2 * chunk) - flow.inputs_for(chunk)  # of a chunk
    cached, anew = measure(flow, x, inputs, lookahead, options)

    state = flow.initial_state(1).nbytes / 1e6
    weights = sum(weight.numel() for weight in flow.parameters()) / 1e6
    ratio = chunk / FRAMES_PER_SECOND
    print(f"{options.flow}, {weights:.1f} M weights, {options.steps} steps, {options.threads} threads, ", end="")
    print(f"chunks of {chunk} frames ({ratio * 1000:.0f} ms), state of {state:.1f} MB a stream")
    print(f"{'audio so far':>12} {'from caches':>14} {'with the prefix':>17} {'times as much':>15}")
    for index, (ours, theirs) in enumerate(zip(cached, anew, strict=True), start=1):
        print(f"{index * ratio:>10.1f} s {ours * 1000:>11.0f} ms {theirs * 1000:>14.0f} ms {theirs / ours:>15.1f}")
    print(f"{'in all':>12} {sum(cached) * 1000:>11.0f} ms {sum(anew) * 1000:>14.0f} ms ", end="")
    print(f"{sum(anew) / sum(cached):>15.1f}")
    if options.picture:
        draw(cached, anew, ratio, options)


def make(options: argparse.Namespace) -> tuple[StreamingModule, Tensor, int]:
    """A flow with random weights, material for it, and the steps of its look-ahead."""
    if options.flow == "compact":
        config, chunk = CompactConfig(80, 132), options.chunk or 10
        flow: StreamingModule = FlowSolver(
            CompactEstimator(config),
            CounterNoise(),
            ChunkMask(chunk, options.left),
            steps=options.steps,
            guidance=options.guidance or 0.0,
        )
        return flow.eval(), torch.randn(1, options.chunks * chunk, config.conditions), 0
    chunk = (options.chunk or 50) // 2
    config = TokenFlowConfig()
    if options.flow == "cosyvoice3":
        config = TokenFlowConfig(RepeatConfig(), DiTConfig())
    guidance = 0.7 if options.guidance is None else options.guidance
    how = Inference(ChunkMask(chunk, options.left // 2), steps=options.steps, guidance=guidance)
    lookahead = config.encoder.lookahead
    tokens = torch.randint(0, config.vocabulary, (1, options.chunks * chunk + lookahead))
    return TokenFlow(config, how).eval(), tokens, lookahead


@torch.inference_mode()
def measure(
    flow: StreamingModule, x: Tensor, inputs: int, lookahead: int, options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Seconds of each chunk, from caches and with the whole prefix; exits where the frames differ."""
    cached, anew = ([float("inf")] * options.chunks for _ in range(2))
    flow.step(x[:, : inputs + lookahead], flow.initial_state(1))  # compiles what is not compiled yet
    for _ in tqdm(range(options.turns), disable=None):
        state, begin = flow.initial_state(1), 0
        for index in range(options.chunks):
            end = (index + 1) * inputs + lookahead
            packet, prefix = x[:, begin:end], x[:, :end]
            spent, out = timed(lambda packet=packet, state=state: flow.step(packet, state).data)
            cached[index], begin = min(cached[index], spent), end
            spent, whole = timed(lambda prefix=prefix: flow(prefix))
            anew[index] = min(anew[index], spent)
            frames = out.shape[1]
            difference = float((out - whole[:, index * frames : (index + 1) * frames]).abs().max())
            if not difference <= TOLERANCE:
                sys.exit(f"chunk {index} from caches differs by {difference:.1e} from the one with the prefix: refused")
    return cached, anew


def timed(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of this process, and the result."""
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def draw(cached: list[float], anew: list[float], ratio: float, options: argparse.Namespace) -> None:
    """Draw both columns over the length of the stream."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "loquent"}):
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        FigureCanvasSVG(figure)
        axis = figure.subplots()
        seconds = [(index + 1) * ratio for index in range(len(cached))]
        axis.plot(seconds, [1000 * spent for spent in anew], marker=".", label="with the whole prefix")
        axis.plot(seconds, [1000 * spent for spent in cached], marker=".", label="from caches of bounded size")
        axis.set_xlabel("audio so far, s")
        axis.set_ylabel("CPU time of a chunk, ms")
        axis.set_title(f"{options.flow}, {options.steps} steps, chunks of {ratio * 1000:.0f} ms", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
        figure.savefig(options.picture, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
