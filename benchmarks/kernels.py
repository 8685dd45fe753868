"""Speed of the CPU kernels beside their references and torch's own attention, all measured in this run.

    python benchmarks/kernels.py [--threads N]

A line is printed only when all implementations agree on its inputs. Times are the best of several rounds in which the
implementations take turns, in microseconds; "torch" is `scaled_dot_product_attention` on each row's slice of the pool,
`conv1d`, `linear` or several of its functions; noise by counters it has none.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.cached_attention import cached_attention
from loquent.kernels.conv_step import depthwise_conv_step
from loquent.kernels.convnext_step import ConvNeXtWeights, convnext_step
from loquent.kernels.counter_noise import counter_noise
from loquent.kernels.cross_attention import attention, cross_attention
from loquent.kernels.linear import linear
from loquent.kernels.registry import use_backend
from loquent.kernels.relative_attention import relative_attention

HEADS, DIM, FRAMES = 6, 64, 1500
ROUNDS = 30
UNCACHED = 1 << 27  # bytes, more than caches hold


def main() -> None:
    """Print one table per kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="cores to use")
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, {HEADS} heads of {DIM} unless named, float32\n")
    with torch.inference_mode():
        for batch, steps in ((1, 1), (5, 1), (1, 3), (1, 15), (1, 50), (8, 1), (8, 15), (32, 15)):
            cross(batch, steps)
        print()
        for batch, steps in ((1, 1500), (8, 50)):
            whole(batch, steps)
        print()
        for batch, steps, ring in (
            (1, 1, 448),
            (8, 1, 448),
            (1, 15, 1500),
            (1, 50, 1500),
            (8, 15, 1500),
            (32, 15, 1500),
        ):
            cached(batch, steps, ring)
        print()
        for batch, steps, heads, dim in (
            (1, 1, 8, 64),
            (1, 2, 8, 64),
            (1, 7, 8, 64),
            (1, 14, 8, 64),
            (8, 1, 8, 64),
            (8, 14, 8, 64),
            (32, 1, 8, 64),
            (32, 14, 8, 64),
            (1, 2, 4, 36),
            (32, 2, 4, 36),
        ):
            relative(batch, steps, heads, dim)
        print()
        for batch, steps, channels in ((1, 1, 512), (1, 14, 512), (8, 14, 512), (32, 14, 1024)):
            convolution(batch, steps, channels)
        print()
        for rows, inputs, outputs in (
            *((rows, 512, 2048) for rows in (1, 2, 4, 8, 16, 64, 448)),
            *((rows, 2048, 512) for rows in (1, 2, 4, 8, 16)),
            *((rows, 384, 384) for rows in (1, 2, 8)),
            *((rows, 384, 51864) for rows in (1, 5)),
        ):
            projection(rows, inputs, outputs)
        print()
        for batch, steps in ((1, 8), (1, 16), (4, 8), (8, 8)):
            block(batch, steps)
        print()
        for batch, steps in ((1, 8), (1, 20), (8, 20)):
            noise(batch, steps)


def cross(batch: int, steps: int) -> None:
    """Decoder steps over 30 s of encoder frames."""
    q = torch.randn(batch, steps, HEADS, DIM)
    k, v = torch.randn(2, batch, HEADS, FRAMES, DIM)
    rows, frames = torch.arange(batch), torch.full((batch,), FRAMES)

    def per_row() -> Tensor:
        return torch.cat([attend(q[row], k[row], v[row]) for row in range(batch)])

    report(
        f"cross_attention      B {batch:2} T {steps:2} frames {FRAMES}",
        lambda: cross_attention(q, k, v, rows, frames)[0],
        per_row,
        4 * q.numel() * FRAMES,
    )


def whole(batch: int, steps: int) -> None:
    """An encoder's attention without a mask."""
    q, k, v = torch.randn(3, batch, steps, HEADS, DIM)
    report(
        f"attention            B {batch:2} T {steps:2}",
        lambda: attention(q, k, v),
        lambda: torch.cat([attend(q[b], k[b].transpose(0, 1), v[b].transpose(0, 1)) for b in range(batch)]),
        4 * batch * steps * steps * HEADS * DIM,
    )


def cached(batch: int, steps: int, ring: int) -> None:
    """A block of encoder or decoder steps that fills its rings to the last entry."""
    q, new_k, new_v = torch.randn(3, batch, steps, HEADS, DIM)
    k, v = torch.randn(2, batch, HEADS, ring, DIM)
    rows, position, length = torch.arange(batch), torch.full((batch,), ring - steps), torch.full((batch,), steps)

    def per_row() -> Tensor:
        k[:, :, ring - steps :] = new_k.transpose(1, 2)
        v[:, :, ring - steps :] = new_v.transpose(1, 2)
        return torch.cat([attend(q[row], k[row], v[row]) for row in range(batch)])

    block = ring if ring % steps else steps  # the new steps all see each other
    report(
        f"cached_attention     B {batch:2} T {steps:2} ring {ring:6}",
        lambda: cached_attention(q, new_k, new_v, k, v, rows, position, length, block=block),
        per_row,
        4 * q.numel() * ring,
    )


def relative(batch: int, steps: int, heads: int, dim: int, ring: int = 70) -> None:
    """A chunk of a Conformer layer, 70 frames of left context; "torch" gets joined keys and scores of distances."""
    q, k, v = torch.randn(3, batch, steps, heads, dim)
    caches = torch.randn(2, batch, heads, ring, dim)
    table, biases = torch.randn(ring + 2 * steps, heads, dim), torch.randn(2, heads, dim)
    rows, position, length = torch.arange(batch), torch.full((batch,), 1000), torch.full((batch,), steps)
    query = position[:, None] + torch.arange(steps)
    first, end = torch.full_like(query, 1000 - ring), torch.full_like(query, 1000 + steps)

    def run() -> Tensor:
        return relative_attention(
            *(q, k, v, *caches, rows, position, length),
            query=query,
            first=first,
            end=end,
            table=table,
            future=steps - 1,
            content_bias=biases[0],
            distance_bias=biases[1],
        )

    run()  # the new keys are in their rings from here on, so that all calls agree
    entries = torch.arange(1000 - ring, 1000) % ring
    keys, values = (
        torch.cat([old[:, :, entries], new.transpose(1, 2)], 2) for old, new in zip(caches, (k, v), strict=True)
    )
    distance = torch.arange(steps)[:, None] - torch.arange(-ring, steps) + steps - 1
    scores = torch.einsum("bqhd,qnhd->bhqn", q + biases[1], table[distance]) * dim**-0.5
    biased = (q + biases[0]).transpose(1, 2)

    def per_row() -> Tensor:
        done = [F.scaled_dot_product_attention(*(x[b, None] for x in (biased, keys, values, scores))) for b in rows]
        return torch.cat(done).transpose(1, 2)

    report(
        f"relative_attention   B {batch:2} T {steps:2} heads {heads} of {dim}",
        run,
        per_row,
        6 * q.numel() * (ring + steps),
    )


def convolution(batch: int, steps: int, channels: int, kernel: int = 9) -> None:
    """The convolution of a Conformer layer."""
    x, weight, bias = torch.randn(batch, steps, channels), torch.randn(channels, kernel), torch.randn(channels)
    tail = torch.zeros(batch, kernel - 1, channels)
    rows, length = torch.arange(batch), torch.full((batch,), steps)

    def run() -> Tensor:
        tail.zero_()  # each call starts the stream, so that all calls agree
        return depthwise_conv_step(x, weight, bias, tail, rows, length)

    def whole() -> Tensor:
        padded = F.pad(x.transpose(1, 2), (kernel - 1, 0))
        return F.conv1d(padded, weight[:, None], bias, groups=channels).transpose(1, 2)

    report(f"depthwise_conv_step  B {batch:2} T {steps:2} channels {channels}", run, whole, 2 * x.numel() * kernel)


def projection(rows: int, inputs: int, outputs: int) -> None:
    """Layers whose weights are out of the cache, as those of a whole model are when their turn comes again."""
    layers = max(UNCACHED // (4 * inputs * outputs), 1)
    x, weights, bias = (
        torch.randn(rows, inputs),
        torch.randn(layers, outputs, inputs) * inputs**-0.5,
        torch.randn(outputs),
    )
    report(
        f"linear               B {rows:3} {inputs:5} to {outputs:5}, {layers:3} layers",
        lambda: torch.stack([linear(x, weight, bias) for weight in weights]),
        lambda: torch.stack([F.linear(x, weight, bias) for weight in weights]),
        2 * rows * weights.numel(),
    )


def block(batch: int, steps: int, dim: int = 256, hidden: int = 768, kernel: int = 7) -> None:
    """A ConvNeXt block of a vocoder; "torch" pads, convolves and multiplies one call at a time."""
    shapes = (dim, kernel), (dim,), (dim,), (dim,), (hidden, dim), (hidden,), (dim, hidden), (dim,), (dim,)
    weights = ConvNeXtWeights(*(torch.randn(shape) * shape[-1] ** -0.5 for shape in shapes))
    x, tail = torch.randn(batch, steps, dim), torch.zeros(batch, kernel - 1, dim)
    rows, length = torch.arange(batch), torch.full((batch,), steps)

    def run() -> Tensor:
        tail.zero_()  # each call starts the stream, so that all calls agree
        return convnext_step(x, weights, tail, rows, length, 0)

    def whole() -> Tensor:
        padded = F.pad(x.transpose(1, 2), (kernel - 1, 0))
        y = F.conv1d(padded, weights.depthwise[:, None], weights.depthwise_bias, groups=dim).transpose(1, 2)
        y = F.layer_norm(y, (dim,), weights.norm, weights.norm_bias)
        y = F.gelu(F.linear(y, weights.expand, weights.expand_bias))
        return x + weights.scale * F.linear(y, weights.contract, weights.contract_bias)

    report(
        f"convnext_step        B {batch:2} T {steps:2} {dim} to {hidden}",
        run,
        whole,
        2 * x.numel() * (2 * hidden + kernel),
    )


def noise(batch: int, steps: int, size: int = 1202) -> None:
    """Noise of the spectra of some frames."""
    seeds, frames = torch.arange(batch), torch.arange(steps).expand(batch, steps)
    report(
        f"counter_noise        B {batch:2} T {steps:2} of {size}",
        lambda: counter_noise(seeds, frames, size),
        None,
        20 * batch * steps * size,
    )


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's attention of one row, q (T, H, D) over k and v (H, N, D), without a copy of either."""
    return F.scaled_dot_product_attention(q.transpose(0, 1)[None], k[None], v[None]).transpose(1, 2)


def report(title: str, kernel: Callable[[], Tensor], torch_own: Callable[[], Tensor] | None, work: int) -> None:
    """Time both implementations of ``kernel`` and torch's, and print them with ``work`` (operations) per second."""

    def on(backend: str) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with use_backend(backend):
                return kernel()

        return run

    own = {} if torch_own is None else {"torch": torch_own}
    candidates = {"reference": on("reference"), **own, "numba": on("numba")}
    expected = candidates["reference"]()
    for name, run in candidates.items():
        error = (run() - expected).abs().max().item()
        if not error < 1e-4:
            raise SystemExit(f"{title}: {name} differs from the reference by {error:.2g}; no speed is worth that")

    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(ROUNDS):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    times = "   ".join(f"{name} {seconds * 1e6:7.0f}" for name, seconds in best.items())
    print(
        f"{title}   {times}   numba {work / best['numba'] / 1e9:5.1f} GFLOP/s, "
        f"{best['reference'] / best['numba']:4.1f} × reference"
        + (f", {best['torch'] / best['numba']:4.2f} × torch" if own else "")
    )


if __name__ == "__main__":
    main()
