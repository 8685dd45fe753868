"""The kernels for GPUs: whether each gives what its reference gives, then its time beside the floor, torch and others.

    python benchmarks/gpu.py [--streams 32] [--dtype bfloat16] [--minutes 7] [OPERATION …]

One run on one GPU takes less than 8 minutes. First every operation runs on ragged rows, some of them empty, with NaN
beyond their lengths, in float32, float16 and bfloat16, and is compared with its reference in float32; an operation that
differs is not timed, and the exit status is 1. Then a line for each operation, times in microseconds:

    floor      what bytes and operations need at the data sheet's rates (`loquent.kernels.gpu.cost`)
    triton     the kernel, and how many times the floor that is
    eager      its reference in torch
    compiled   the same under `torch.compile`
    flex       FlexAttention under `torch.compile` on joined keys, without joining them or remembering new ones

Times are medians of CUDA graphs that are replayed, so that they do not count what Python takes; "+" marks a time of
single calls, of what cannot be captured.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loquent.kernels.batched_lora import AdapterRows, LoraPool
from loquent.kernels.cached_attention import attention_mask, ring_contents
from loquent.kernels.convnext_step import ConvNeXtWeights
from loquent.kernels.finite_scalar import Digits
from loquent.kernels.gpu.cost import DEVICES, Rates, cost_of
from loquent.kernels.int8_linear import Int8Weight
from loquent.kernels.log_mel import Compression
from loquent.kernels.registry import operations, use_backend

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ERROR = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
ROUNDS, PER_GRAPH = 50, 20


class Case(NamedTuple):
    """A call of an operation's implementation.

    flex: the same attention by FlexAttention, where that has it.
    """

    operation: str
    label: str
    args: tuple[Any, ...]
    flex: Callable[[], Callable[[], Tensor]] | None = None


def main() -> None:
    """Check, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="*", help="all unless given")
    parser.add_argument("--streams", type=int, default=32, help="rows of a batch")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of what is timed")
    parser.add_argument("--minutes", type=float, default=7, help="no further operation is timed after so long")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This measures kernels for GPUs, and torch finds none here. Nothing was measured.")
    end = time.monotonic() + 60 * options.minutes
    device = torch.device("cuda")
    name, rates = torch.cuda.get_device_name(device), rates_of(torch.cuda.get_device_name(device))
    print(f"{name}, torch {torch.__version__}, {options.streams} streams, {options.dtype}")
    print(f"a copy moves {copy_rate(device) / 1e12:.2f} TB/s" + (f" of {rates.bytes / 1e12:.2f}" if rates else ""))

    wanted = set(options.operations) or {one for one, each in operations().items() if "triton" in each.implementations}
    with torch.no_grad(), use_backend("triton"):
        wrong = set()
        for dtype in DTYPES.values():
            for case in cases(options.streams, dtype, device):
                if case.operation in wanted and (fault := difference(case, dtype)):
                    wrong.add(case.operation)
                    print(f"WRONG {case.operation:20} {case.label:24} {dtype!s:14} {fault}")
        print(f"{len(wanted - wrong)} of {len(wanted)} operations agree with their references\n")
        print(f"{'':45} {'floor':>8} {'triton':>8} {'':6} {'eager':>8} {'compiled':>9} {'flex':>8}")
        for case in cases(options.streams, DTYPES[options.dtype], device):
            if case.operation in wanted - wrong:
                if time.monotonic() > end:
                    print(f"{case.operation:20} {case.label:24} no time left")
                else:
                    print(line(case, rates), flush=True)
    sys.exit(bool(wrong))


def rates_of(name: str) -> Rates | None:
    """The data sheet's rates of a device, by its name."""
    return next((rates for key, rates in DEVICES.items() if key in name), None)


def copy_rate(device: torch.device) -> float:
    """Bytes per second that a large copy reads and writes."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / measure(lambda: target.copy_(source))[0]


# ----- what is called -----


def cases(streams: int, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Calls of a chunk of each of the streams, as models make them; every fifth stream is ragged, every ninth empty."""
    torch.manual_seed(0)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, device=device) * scale).to(dtype)

    def lengths(steps: int) -> Tensor:
        row = torch.arange(streams, device=device)
        some = torch.where(row % 5 == 4, (steps + 1) // 2, steps)
        return torch.where(row % 9 == 8, 0, some)

    def chunk(steps: int, *shape: int) -> Tensor:
        x = draw(streams, steps, *shape)
        x[torch.arange(steps, device=device) >= lengths(steps)[:, None]] = math.nan
        return x

    rows = torch.randperm(streams + 1, device=device)[:streams]
    late = torch.full((streams,), 1000, device=device)
    for steps, ring, left in ((1, 448, None), (15, 1500, None), (1, 4096, 4000)):
        position = torch.full((streams,), ring - steps if left is None else 1_000_000, device=device)
        new, pool = [chunk(steps, 6, 64) for _ in range(3)], [draw(streams + 1, 6, ring, 64) for _ in range(2)]
        places = rows, position, lengths(steps)
        args = *new, *pool, *places, steps, left, 0
        yield Case("cached_attention", f"T {steps:2} ring {ring}", args, lambda args=args: flex_ring(*args))
    q, pool = draw(streams, 1, 6, 64), [draw(streams + 1, 6, 1500, 64) for _ in range(2)]
    args = q, *pool, rows, lengths(1) * 1500, None
    yield Case("cross_attention", "T  1 frames 1500", args, lambda args=args: flex_cross(*args))
    yield Case("cross_attention", "with weights", (*args[:-1], torch.tensor([1, 4], device=device)))
    for steps in (2, 14):
        new, pool = [chunk(steps, 8, 64) for _ in range(2)], [draw(streams + 1, 8, 70, 64) for _ in range(2)]
        query = late[:, None] + torch.arange(steps, device=device)
        valid = torch.arange(steps, device=device) < lengths(steps)[:, None]
        sight = query, query * 0 + 930, torch.where(valid, 1000 + lengths(steps)[:, None], 0)
        weights = draw(70 + 2 * steps, 8, 64), steps, draw(8, 64), draw(8, 64)
        args = draw(streams, steps, 8, 64), *new, *pool, rows, late, lengths(steps), *sight, *weights
        yield Case("relative_attention", f"T {steps:2} ring 70", args, lambda args=args: flex_relative(*args))
    taps, norm = (draw(512, 9), draw(512)), (draw(512), draw(512))
    tail = draw(streams + 1, 8, 512), rows, lengths(14)
    yield Case("depthwise_conv_step", "T 14 C 512", (chunk(14, 512), *taps, *tail))
    yield Case("gated_conv_step", "T 14 C 512", (chunk(14, 1024), *taps, norm, *tail))
    shapes = (512, 7), *[(512,)] * 3, (1536, 512), (1536,), (512, 1536), *[(512,)] * 2
    block = ConvNeXtWeights(*(draw(*one, scale=one[-1] ** -0.5 if len(one) > 1 else 1) for one in shapes))
    x = chunk(2, 512).nan_to_num()  # what it gives beyond a length is arbitrary
    yield Case("convnext_step", "T  2 C 512", (x, block, draw(streams + 1, 6, 512), rows, lengths(2) * 0 + 2, 3))
    for outputs, inputs in ((2048, 512), (512, 2048), (51864, 384)):
        args = draw(streams, inputs), draw(outputs, inputs, scale=inputs**-0.5), draw(outputs)
        yield Case("linear", f"{inputs} to {outputs}", (*args, "none", None, 1.0))
        if outputs == 2048:
            yield Case("linear", "silu, residual", (*args, "silu", draw(streams, outputs), 0.5))
    values = torch.randint(-127, 128, (51864, 384), dtype=torch.int8, device=device)
    scale = torch.rand(51864, device=device) / 127
    unit = torch.rand(streams, 384, device=device) * 2 - 1
    yield Case("int8_linear", "384 to 51864", (unit, Int8Weight(values, scale, torch.zeros_like(scale), None)))
    pool = LoraPool(draw(8, 512, 32, scale=0.04), draw(8, 32, 512, scale=0.2), torch.full((8,), 32))
    adapters = AdapterRows.of(torch.arange(streams) % 9 - 1)
    yield Case(
        "batched_lora", "T  2 rank 32, 8 of them", (draw(streams, 2, 512), draw(streams, 2, 512), pool, adapters)
    )
    yield Case("ssru", "T  1 C 512", (draw(streams, 1, 512), draw(streams, 1, 512).sigmoid(), draw(streams, 512)))
    for steps, size in ((9, 128), (1, 640)):
        state = draw(streams, size), draw(streams, size)
        args = chunk(steps, 4 * size), draw(4 * size, size, scale=size**-0.5), *state, lengths(steps)
        yield Case("lstm_steps", f"T {steps:2} cells {size}", args)
    seeds, frames = torch.arange(streams, device=device), late[:, None] + torch.arange(20, device=device)
    yield Case("counter_noise", "T 20 of 80", (seeds, frames, 80))
    joint = draw(streams, 4, 640), draw(1025, 640, scale=0.04), draw(1025)
    yield Case("linear_argmax", "4 frames, 640 to 1025", joint)
    three, one = torch.zeros(8, device=device), torch.ones(8, device=device)
    digits = Digits(three, one * 0.999, three, one, 3 ** torch.arange(8, device=device))
    yield Case(
        "finite_scalar_codes", "T  8 C 1280", (draw(streams, 8, 1280), draw(8, 1280, scale=0.03), draw(8), digits)
    )
    samples, taper = torch.randn(streams, 400 + 160 * 29, device=device), torch.hann_window(400, device=device)
    filters = torch.rand(201, 80, device=device)
    compression = Compression(floor=1e-10, decimal=True)
    yield Case("log_mel", "30 frames, 80 bins", (samples, taper, filters, 160, compression))
    logits = torch.randn(min(streams, 8), 50, 41, 1025, device=device)
    targets = torch.randint(1024, (len(logits), 40), device=device)
    counts = torch.arange(50, 50 - len(logits), -1, device=device)
    yield Case("transducer_loss", "50 frames, 40 tokens", (logits, targets, counts, counts - 10))


# ----- whether it is right -----


def difference(case: Case, dtype: torch.dtype) -> str:
    """What is wrong with the kernel's results, among them what it leaves in the tensors; nothing if they agree."""
    implementations = operations()[case.operation].implementations
    expected_args = moved(case.args, lambda x: (x.float() if x.dtype == dtype else x).clone())
    args = moved(case.args, torch.clone)
    with use_backend("reference"):
        expected = results(case, implementations["reference"], expected_args)
    try:
        got = results(case, implementations["triton"], args)
    except Exception as error:  # the other operations are to be tried, too
        return f"{type(error).__name__}: {error}".splitlines()[0]
    for one, other in zip(got, expected, strict=True):
        if one.is_floating_point():
            both_nan = one.isnan() & other.isnan()
            distance = torch.where(both_nan, 0, one.double() - other.double()).abs()
            allowed = ERROR[dtype] * (1 + other.double().abs().nan_to_num())
            if not bool((distance <= allowed).all()):
                return f"shape {tuple(one.shape)}: off by up to {float(distance.nan_to_num(math.inf).max()):.3g}"
        elif case.operation in ("linear_argmax", "finite_scalar_codes"):  # roundings decide between neighbours
            if float((one != other).double().mean()) > (0.001 if dtype == torch.float32 else 0.1):
                return f"{int((one != other).sum())} of {one.numel()} choices differ"
        elif not torch.equal(one, other):
            return f"integers of shape {tuple(one.shape)} differ"
    return ""


def results(case: Case, run: Callable[..., Any], args: tuple[Any, ...]) -> list[Tensor]:
    """What a call returns and leaves in its tensors; of the loss that is trained with, its gradient."""
    if case.operation != "transducer_loss":
        return [*tensors_of(run(*args)), *tensors_of(args)]
    with torch.enable_grad():
        logits = args[0].requires_grad_()
        loss = run(logits, *args[1:])
        return [loss.detach(), *torch.autograd.grad(loss.sum(), logits)]


def moved(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Arguments with every tensor changed; the grouping of adapters lies on the CPU and stays."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        parts = [moved(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, AdapterRows | type):
        fields = {field.name: moved(getattr(value, field.name), change) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors within arguments or results."""
    found: list[Tensor] = []
    moved(value, lambda x: found.append(x) or x)
    return found


# ----- how long it takes -----


def line(case: Case, rates: Rates | None) -> str:
    """The times of one case."""
    implementations = operations()[case.operation].implementations
    reference = implementations["reference"]
    floor = cost_of(case.operation, *case.args).floor(rates) if rates else math.nan

    def eager() -> Any:
        with use_backend("reference"):
            return reference(*case.args)

    def compiled() -> Callable[[], Any]:
        run = torch.compile(reference, dynamic=False)
        return lambda: run(*case.args)

    triton, mark = measure(lambda: implementations["triton"](*case.args))
    columns = [f"{1e6 * floor:8.1f} {1e6 * triton:8.1f}{mark}", f"{triton / floor:4.1f}x"]
    columns += [attempt(lambda: eager), attempt(compiled), attempt(case.flex) if case.flex else ""]
    return f"{case.operation:20} {case.label:24} " + " ".join(columns)


def attempt(make: Callable[[], Callable[[], Any]]) -> str:
    """The time of a rival, or that it fails."""
    try:
        with use_backend("reference"):
            seconds, mark = measure(make())
    except Exception as error:  # its own affair
        return f"{type(error).__name__[:8]:>9}"
    return f"{1e6 * seconds:8.1f}{mark}"


def measure(run: Callable[[], Any]) -> tuple[float, str]:
    """Median seconds of a call, replayed in a graph or, marked "+", called one by one."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph, calls, mark = torch.cuda.CUDAGraph(), PER_GRAPH, " "
    try:
        with torch.cuda.graph(graph):
            for _ in range(calls):
                run()
        replay = graph.replay
    except Exception:  # it waits for the device, or copies from memory that may move
        torch.cuda.synchronize()
        replay, calls, mark = run, 1, "+"
    times = []
    for _ in range(ROUNDS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / calls)
    return sorted(times)[ROUNDS // 2] / 1000, mark


# ----- FlexAttention -----


def flex_ring(q, k, v, cache_k, cache_v, rows, position, length, block, left, sinks) -> Callable[[], Tensor]:
    """Attention of new steps to cached keys and to each other."""
    steps = torch.arange(q.shape[1], device=q.device)
    query = position[:, None] + steps
    inside = steps < length[:, None]
    key = torch.cat([ring_contents(position, cache_k.shape[2], sinks), torch.where(inside, query, -1)], 1)
    mask = attention_mask(query, key, block, left, sinks)
    return flex(q, joined(cache_k, rows, k), joined(cache_v, rows, v), mask)


def flex_cross(q, cache_k, cache_v, rows, frames, heads) -> Callable[[], Tensor]:
    """Attention to the valid frames."""
    mask = torch.arange(cache_k.shape[2], device=q.device) < frames[:, None, None]
    return flex(q, cache_k[rows], cache_v[rows], mask.expand(-1, q.shape[1], -1))


def flex_relative(
    q, k, v, cache_k, cache_v, rows, position, length, query, first, end, table, future, content, distance
) -> Callable[[], Tensor]:
    """Attention with scores of distances, which are computed beforehand and are not timed."""
    steps = torch.arange(k.shape[1], device=q.device)
    new = torch.where(steps < length[:, None], position[:, None] + steps, -1)
    key = torch.cat([ring_contents(position, cache_k.shape[2], 0), new], 1)
    scores = torch.einsum("bqhd,nhd->bhqn", q + distance, table) * q.shape[-1] ** -0.5
    index = (query[:, :, None] - key[:, None, :] + future).clamp(0, table.shape[0] - 1)
    scores = scores.gather(3, index[:, None].expand(-1, q.shape[2], -1, -1))
    mask = (key[:, None] >= first[..., None]) & (key[:, None] < end[..., None]) & (key[:, None] >= 0)
    return flex(q + content, joined(cache_k, rows, k), joined(cache_v, rows, v), mask, scores)


def joined(cache: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    """Cached and new keys or values of every row, (B, H, N, D)."""
    return torch.cat([cache[rows], new.nan_to_num().transpose(1, 2)], 2)


def flex(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scores: Tensor | None = None) -> Callable[[], Tensor]:
    """FlexAttention of q (B, T, H, D) over k, v (B, H, N, D) under a mask (B, T, N), with scores (B, H, T, N) added."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return mask[b, i, j]

    def add(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score if scores is None else score + scores[b, h, i, j]

    q = q.nan_to_num().transpose(1, 2).contiguous()
    block_mask = create_block_mask(seen, len(q), None, q.shape[2], k.shape[2], device=q.device)
    run = torch.compile(flex_attention, dynamic=False)
    return lambda: run(q, k, v, score_mod=add, block_mask=block_mask)


if __name__ == "__main__":
    main()
