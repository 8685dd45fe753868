"""The laws of streaming as one fixture: `check_streaming(module, x)` tries them on any `StreamingModule`."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

# One thread in every process, set before torch is loaded: tests run side by side, and OpenMP's threads wait for each
# other in busy loops.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from loquent.kernels.registry import use_backend
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk, StreamingModule, as_chunk


def _load(file: str) -> ModuleType:
    """A module beside this file; other processes load some of them as programs, so they are no fixtures themselves."""
    path = Path(__file__).parent / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def task_laws() -> ModuleType:
    """The module `task_laws` beside this file: `check_task` tries the laws on whole streams of a task."""
    module = _load("task_laws.py")
    module.waiting_refused = waiting_refused  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="session")
def toy_translation() -> ModuleType:
    """Small models of translation, and pieces for them."""
    return _load("translate/toy_translation.py")


@pytest.fixture(scope="session")
def band_energy() -> ModuleType:
    """A task with audio in and text out, whose results can be compared exactly."""
    return _load("speech/band_energy.py")


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """Models of translation to test with."""
    return _load("translate/toy_translation.py")


@pytest.fixture(scope="session")
def tones() -> ModuleType:
    """A task with text in and audio out, for longer than text comes in."""
    return _load("speech/tones.py")


@pytest.fixture(scope="session")
def scripted_talk() -> ModuleType:
    """A chat server, a recogniser and an agent whose talk is known before."""
    return _load("speech/scripted_talk.py")


@pytest.fixture(scope="session")
def swapped() -> ModuleType:
    """A task with text in and text out."""
    return _load("speech/swapped.py")


@pytest.fixture(scope="session")
def check_streaming() -> Callable[..., None]:
    """The function `check`, for modules of this tree and of others."""
    return check


@pytest.fixture(scope="session")
def refuse_waiting() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which what would wait for a GPU fails, on the CPU too."""
    return waiting_refused


def check(
    module: StreamingModule,
    x: Tensor,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    shortest: int = 1,
    tight: bool = True,
    punctual: bool = True,
    examples: int = 8,
) -> None:
    """Fail unless ``module`` obeys the laws of streaming on ``x``.

    - Chunk invariance: `step` over any packets, empty ones included, gives what `forward` gives the whole stream.
    - Batch invariance: batch mates, slots, the rest of the pool and when a stream joins or pauses change nothing.
    - State is a value: a clone, a saved copy and a stream rolled back or moved to another slot continue alike; `reset`
      makes a slot new; `nbytes` is constant.
    - Outputs come exactly when `inputs_for` says, and depend on no later input.
    - Static shapes: on static chunks the first two laws hold without waiting for the device, and packets of one shape
      give outputs of one shape.

    Args:
        module: in evaluation mode; its `forward` maps (B, T, ...) to (B, T', ...).
        x: (B, T, ...) with B >= 2 streams of material; ragged prefixes of them are used.
        rtol, atol: tolerance against `forward`.
        shortest: length of the shortest stream that `forward` accepts.
        tight: whether an output also has to depend on the last input that it waits for (false for pure buffering).
        punctual: whether outputs never come sooner than `inputs_for` says (false where that depends on the data and
            `inputs_for` is an upper bound).
        examples: number of partitions drawn.
    """
    if x.shape[0] < 2:
        raise ValueError(f"x has {x.shape[0]} row; give at least 2, for batch mates")
    total = x.shape[1]
    lengths = st.just(total) | st.integers(shortest, total)
    checks = list(HealthCheck)
    drawing = functools.partial(settings, deadline=None, database=None, suppress_health_check=checks, derandomize=True)

    @drawing(max_examples=examples)
    @given(plans=st.lists(_plans(lengths), min_size=1, max_size=x.shape[0]), seed=st.integers(0, 2**32 - 1))
    def any_partition(plans: list[_Plan], seed: int) -> None:
        with torch.no_grad():
            _check_invariance(module, module.step, x, plans, random.Random(seed), rtol, atol, punctual)

    @drawing(max_examples=examples // 2 + 1)
    @given(plans=st.lists(_plans(lengths), min_size=1, max_size=x.shape[0]), seed=st.integers(0, 2**32 - 1))
    def any_static_partition(plans: list[_Plan], seed: int) -> None:
        rng = random.Random(seed)
        with torch.no_grad(), use_backend(rng.choice(["reference", "numba"])):
            _check_invariance(module, static_step, x, plans, rng, rtol, atol, punctual)

    @drawing(max_examples=examples)
    @given(plan=_plans(lengths), seed=st.integers(0, 2**32 - 1))
    def any_interruption(plan: _Plan, seed: int) -> None:
        with torch.no_grad():
            _check_value(module, x, plan, random.Random(seed), rtol, atol)

    static_step = StaticStep(module)
    with torch.no_grad():
        whole = module.step(x, module.initial_state(x.shape[0]), last=True)
        for got, expected in zip(whole.rows(), module(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)
        _check_lookahead(module, x, tight)
        _check_halves(module, static_step, x, rtol, atol)
    any_partition()
    any_interruption()
    any_static_partition()


class StaticStep:
    """`step` of a module in static mode: it must not wait for the device, and shapes follow from shapes."""

    def __init__(self, module: StreamingModule) -> None:
        self.module = module
        self.shapes: dict[torch.Size, torch.Size] = {}

    def __call__(self, x: Chunk | Tensor, state: State, rows: Tensor | None = None, last: bool = False) -> Chunk:
        chunk = replace(as_chunk(x, last), static=True)
        with waiting_refused():
            out = self.module.step(chunk, state, rows)
        assert out.static, "what a step makes of a static chunk is not static: build it with `with_data`"
        expected = self.shapes.setdefault(chunk.data.shape[1:], out.data.shape[1:])
        assert out.data.shape[1:] == expected, (
            f"packets of shape {tuple(chunk.data.shape[1:])} gave {tuple(expected)} and {tuple(out.data.shape[1:])}"
        )
        return out


@contextlib.contextmanager
def waiting_refused() -> Iterator[None]:
    """Fail on what would wait for a GPU: reading values on the host, shapes that depend on values, values from it."""
    with _NoReading(), _NoShapesOfValues():
        yield


class _NoReading(TorchFunctionMode):
    """Refuses what on the CPU reads memory without an operation that a dispatch mode would see."""

    READING = frozenset({Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in self.READING, f"a static step reads values on the host: {func.__name__}"
        return func(*args, **(kwargs or {}))


class _NoShapesOfValues(TorchDispatchMode):
    """Refuses operations that copy between host and device, or whose result has a shape that depends on values."""

    REFUSED = frozenset(
        "_local_scalar_dense item is_nonzero equal lift_fresh nonzero argwhere masked_select unique_dim "
        "unique_consecutive unique_dim_consecutive _unique _unique2 bincount masked_scatter".split()
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.REFUSED, f"a static step waits for the device: aten.{name}"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            kinds = {index.dtype for index in args[1] if index is not None}
            assert not kinds & {torch.bool, torch.uint8}, f"a static step waits for the device: aten.{name} by a mask"
        if name == "repeat_interleave":
            assert (kwargs or {}).get("output_size") is not None, "a static step repeats by counts without output_size"
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Plan:
    """How one stream arrives: its length, where it is cut into packets, and whether its end is announced separately."""

    length: int
    cuts: tuple[int, ...]
    late_end: bool

    def packets(self) -> list[tuple[int, int, bool]]:
        """(first step, one past the last step, whether the stream ends) of each packet."""
        edges = [0, *self.cuts, self.length]
        packets = [(a, b, False) for a, b in itertools.pairwise(edges)]
        if self.late_end:
            return [*packets, (self.length, self.length, True)]
        return [*packets[:-1], (*packets[-1][:2], True)]


@st.composite
def _plans(draw: Callable[..., Any], lengths: st.SearchStrategy[int]) -> _Plan:
    length = draw(lengths)
    cuts = draw(st.lists(st.integers(0, length), max_size=6))
    single = draw(st.integers(0, length))  # followed by packets of one step
    cuts += range(single, min(single + draw(st.integers(0, 6)), length + 1))
    return _Plan(length, tuple(sorted(cuts)), draw(st.booleans()))


def _noise_like(x: Tensor, scale: float = 1.0) -> Tensor:
    """Other values of the same kind: shifted floats, mirrored integers, flipped bools."""
    if x.is_floating_point() or x.is_complex():
        return x + scale * (1 + torch.rand(x.shape, generator=torch.Generator().manual_seed(x.numel())))
    if x.dtype == torch.bool:
        return ~x
    low, high = x.min(), x.max()
    return torch.where(x == high, low, x + 1)


def _chunk(parts: list[Tensor], last: list[bool], spare: int) -> Chunk:
    """Ragged chunk with ``spare`` surplus steps; what lies beyond a row's length is garbage."""
    width = max(part.shape[0] for part in parts) + spare
    data = torch.full((len(parts), width, *parts[0].shape[1:]), 1, dtype=parts[0].dtype)
    if data.is_floating_point():
        data.uniform_(-50, 50)
    for row, part in zip(data, parts, strict=True):
        row[: part.shape[0]] = part
    return Chunk(data, torch.tensor([part.shape[0] for part in parts]), torch.tensor(last))


def _join(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0)


def _rows_of(state: State, slots: list[int]) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor) for name, tensor, _ in state.gather(slots).leaves())


def _check_invariance(
    module: StreamingModule,
    step: Callable[..., Chunk],
    x: Tensor,
    plans: list[_Plan],
    rng: random.Random,
    rtol: float,
    atol: float,
    punctual: bool,
) -> None:
    """Run the planned streams through one pool, in random slots, order and company."""
    pool_size = len(plans) + 2
    state = module.initial_state(pool_size)
    nbytes = state.nbytes
    assert state.slots == pool_size

    used = rng.sample(range(pool_size), rng.randint(1, pool_size))  # by streams that were here before
    step(_noise_like(x[:1].expand(len(used), *x.shape[1:])), state, torch.tensor(used))
    state.reset(used)
    fresh = module.initial_state(pool_size)
    for (name, tensor), (_, new) in zip(_rows_of(state, used), _rows_of(fresh, used), strict=True):
        assert torch.equal(tensor, new), f"reset leaves '{name}' unlike a new state"

    slots = rng.sample(range(pool_size), len(plans))
    waiting = {stream: plan.packets() for stream, plan in enumerate(plans)}
    outputs: list[list[Tensor]] = [[] for _ in plans]
    emitted = [0] * len(plans)
    while waiting:
        active = rng.sample(sorted(waiting), rng.randint(1, len(waiting)))
        packets = [waiting[stream].pop(0) for stream in active]
        chunk = _chunk(
            [x[stream, a:b] for stream, (a, b, _) in zip(active, packets, strict=True)],
            [end for *_, end in packets],
            spare=rng.choice([0, 0, 1, 3]),
        )
        idle = sorted(set(range(pool_size)) - {slots[stream] for stream in active})
        before = list(_rows_of(state, idle))
        out = step(chunk, state, torch.tensor([slots[stream] for stream in active]))
        for (name, was), (_, now) in zip(before, _rows_of(state, idle), strict=True):
            assert torch.equal(was, now), f"a step changed '{name}' of a slot that was not in its batch"
        assert out.last.tolist() == chunk.last.tolist()
        assert int(out.length.min()) >= 0
        assert int(out.length.max()) <= out.data.shape[1]
        for stream, (_, received, end), rows in zip(active, packets, out.rows(), strict=True):
            outputs[stream].append(rows)
            emitted[stream] += rows.shape[0]
            if end:
                del waiting[stream]
                continue
            due = f"of stream {stream} after {received} inputs, {emitted[stream]} outputs emitted"
            early = module.inputs_for(emitted[stream]) > received
            assert not (punctual and early), f"an output came before inputs_for allows it: {due}"
            assert module.inputs_for(emitted[stream] + 1) > received, f"an output is overdue by inputs_for: {due}"
    assert state.nbytes == nbytes, "the state grew"

    for stream, plan in enumerate(plans):
        expected = module(x[stream : stream + 1, : plan.length])[0]
        got = _join(outputs[stream])
        assert got.shape == expected.shape, f"stream {stream} gave {tuple(got.shape)}, whole {tuple(expected.shape)}"
        torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


def _check_halves(module: StreamingModule, step: Callable[..., Chunk], x: Tensor, rtol: float, atol: float) -> None:
    """Two packets of one shape, the second of which ends every stream."""
    half, state = x.shape[1] // 2, module.initial_state(x.shape[0])
    parts = [step(x[:, :half], state), step(x[:, half : 2 * half], state, last=True)]
    for *got, expected in zip(*(part.rows() for part in parts), module(x[:, : 2 * half]), strict=True):
        torch.testing.assert_close(torch.cat(got), expected, rtol=rtol, atol=atol)


def _check_value(module: StreamingModule, x: Tensor, plan: _Plan, rng: random.Random, rtol: float, atol: float) -> None:
    """Interrupt one stream anywhere; every copy of its state has to continue as the original does."""
    packets = plan.packets()
    cut = rng.randint(0, len(packets) - 1)

    def run(part: list[tuple[int, int, bool]], state: State, slot: int) -> Tensor:
        rows = torch.tensor([slot])
        chunks = [Chunk(x[:1, a:b], torch.tensor([b - a]), torch.tensor([end])) for a, b, end in part]
        return _join([next(iter(module.step(chunk, state, rows).rows())) for chunk in chunks])

    state = module.initial_state(2)
    run(packets[:cut], state, 1)
    kept, saved, row = state.clone(), state.to_bytes(), state.gather([1])
    expected = run(packets[cut:], state, 1)

    torch.testing.assert_close(run(packets[cut:], kept.clone(), 1), expected, rtol=0, atol=0, msg="a clone differs")

    loaded = module.initial_state(2)
    loaded.from_bytes(saved)
    torch.testing.assert_close(run(packets[cut:], loaded, 1), expected, rtol=0, atol=0, msg="a saved copy differs")

    rolled = module.initial_state(2)
    run(packets[:cut], rolled, 1)
    before = rolled.clone()
    module.step(_noise_like(x[:1]), rolled, torch.tensor([1]), last=True)
    rolled.scatter([1], before.gather([1]))
    torch.testing.assert_close(run(packets[cut:], rolled, 1), expected, rtol=0, atol=0, msg="a rolled back one differs")

    moved = module.initial_state(5)
    module.step(_noise_like(x[1:2]), moved, torch.tensor([3]))
    moved.scatter([3], row)
    torch.testing.assert_close(run(packets[cut:], moved, 3), expected, rtol=rtol, atol=atol)


def _check_lookahead(module: StreamingModule, x: Tensor, tight: bool) -> None:
    """Perturb inputs: an output depends on none after those it waits for and, if ``tight``, on the last of them."""
    total, row = x.shape[1], x[:1]
    base = module(row)
    waits: dict[int, list[int]] = {}  # last input waited for -> outputs
    for output in range(base.shape[1]):
        last = module.inputs_for(output + 1) - 1
        if last >= total:
            break
        waits.setdefault(last, []).append(output)
    assert module.inputs_for(0) == 0
    assert waits, f"{total} inputs are not enough for one output before the end: give a longer x"

    rng, moments = random.Random(0), sorted(waits)
    for last in {moments[0], moments[-1], *rng.sample(moments, min(len(moments), 6))}:
        final = waits[last][-1] + 1
        if last + 1 < total:
            changed = row.clone()
            changed[:, last + 1 :] = _noise_like(changed[:, last + 1 :])
            torch.testing.assert_close(
                module(changed)[:, :final],
                base[:, :final],
                rtol=1e-4,
                atol=1e-5,
                msg=f"output {final - 1} depends on input > {last}",
            )
        promised = int((final - 1) * module.stride) + module.latency if final <= 512 else total
        assert last <= promised, f"output {final - 1} waits for input {last}, latency promises {promised}"
    if tight:
        used = False
        for last in rng.sample(moments, min(len(moments), 12)):
            changed = row.clone()
            changed[:, last : last + 1] = _noise_like(changed[:, last : last + 1], scale=100)
            used |= not torch.equal(module(changed)[:, waits[last]], base[:, waits[last]])
        assert used, "no output depends on the last input that it waits for: latency is declared too large"
