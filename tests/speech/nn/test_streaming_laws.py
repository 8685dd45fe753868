"""The laws' own test: they hold for well-made modules and catch each kind of badly made one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.streaming import (
    Blocks,
    Chain,
    Chunk,
    StreamingModule,
    Window,
    WindowState,
    as_chunk,
    as_rows,
    slide,
    step_in_groups,
)


class Convolution(StreamingModule):
    """Plain strided convolution over samples, (B, T) -> (B, T'), in the shape every windowed module has."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window
        self.taps = nn.Parameter(torch.linspace(0.5, 1.5, window.kernel), requires_grad=False)

    def initial_state(self, batch: int) -> WindowState:
        return WindowState.zeros(self.window, batch, like=self.taps)

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, self.initial_state(x.shape[0]), last=True).data

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        chunk = as_chunk(x, last)
        chunk = slide(self.window, chunk, state, as_rows(rows, chunk))
        if not chunk.data.shape[1]:
            return chunk
        return chunk.with_data(chunk.data.unfold(1, self.window.kernel, self.window.stride) @ self.taps)

    def inputs_for(self, outputs: int) -> int:
        return self.window.inputs_for(outputs)


class Grouped(Convolution):
    """Two rows at a time."""

    def step(self, x, state, rows=None, last=False):
        chunk = as_chunk(x, last)
        return step_in_groups(Convolution(self.window), chunk, state, as_rows(rows, chunk), 2)


class Forgetful(Convolution):
    """Loses its history at every packet."""

    def step(self, x, state, rows=None, last=False):
        state.tail.zero_()
        return super().step(x, state, rows, last)


class Hasty(Convolution):
    """Declares one input of look-ahead less than it needs."""

    def inputs_for(self, outputs):
        return max(super().inputs_for(outputs) - 1, 0)


class Peeking(Convolution):
    """Normalises by a batch mate's level."""

    def step(self, x, state, rows=None, last=False):
        chunk = super().step(x, state, rows, last)
        return chunk.with_data(chunk.data + 0.1 * chunk.data.mean()) if chunk.data.numel() else chunk


class Hidden(Convolution):
    """Keeps something outside of its state."""

    steps = 0

    def step(self, x, state, rows=None, last=False):
        self.steps += 1
        chunk = super().step(x, state, rows, last)
        return chunk.with_data(chunk.data + self.steps)


class Waiting(Convolution):
    """Asks the device for a number, in static mode only, as each of the following does something."""

    def step(self, x, state, rows=None, last=False):
        chunk = super().step(x, state, rows, last)
        return self.trespass(chunk) if chunk.static and chunk.data.numel() else chunk

    def trespass(self, chunk):
        assert int(chunk.length.sum()) >= 0
        return chunk


class Listing(Waiting):
    """Takes numbers to the host, which on the CPU is no operation of torch."""

    def trespass(self, chunk):
        assert min(chunk.length.tolist()) >= 0
        return chunk


class Masking(Waiting):
    """Picks steps by a mask."""

    def trespass(self, chunk):
        return chunk.with_data(chunk.data - chunk.data[chunk.mask].mean())


class Sending(Waiting):
    """Brings numbers from the host."""

    def trespass(self, chunk):
        return chunk.with_data(chunk.data * torch.tensor([1.0]))


class Forgetting(Waiting):
    """Makes a new chunk that is no longer static."""

    def trespass(self, chunk):
        return Chunk(chunk.data, chunk.length, chunk.last)


class Widening(Waiting):
    """Has results of one shape at first, later of another."""

    steps = 0

    def trespass(self, chunk):
        self.steps += 1
        return chunk.with_data(F.pad(chunk.data, (0, self.steps)))


@pytest.fixture
def samples() -> Tensor:
    return torch.randn(3, 60, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "window",
    [
        Window(1),
        Window(3, left=2),
        Window(3, 2, left=2, right=1),
        Window(5, 3, left=2, right=2),
        Window(8, 3, left=4, right=2, reflect="left"),
        Window(8, 3, left=4, right=4, reflect="both"),
        Window(2, 5, right=1),
    ],
    ids=str,
)
def test_laws_hold_for_windows(check_streaming, samples, window):
    check_streaming(Convolution(window), samples, shortest=0)


def test_laws_hold_for_groups_of_rows(check_streaming, samples):
    check_streaming(Grouped(Window(5, 3, left=2, right=2)), samples, shortest=0)


def test_laws_hold_for_blocks_and_chains(check_streaming, samples):
    check_streaming(Blocks(4), samples, shortest=0, tight=False)
    check_streaming(
        Chain(Convolution(Window(4, 2, left=3)), nn.Tanh(), Convolution(Window(3, left=1, right=1))), samples
    )
    check_streaming(Chain(Blocks(6), Convolution(Window(3, left=2))), samples, shortest=0, tight=False)


@pytest.mark.parametrize("module", [Forgetful, Hasty, Peeking, Hidden])
def test_laws_catch(check_streaming, samples, module):
    with pytest.raises((AssertionError, ExceptionGroup)):
        check_streaming(module(Window(5, 2, left=2, right=2)), samples, shortest=0)


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        (Waiting, "aten._local_scalar_dense"),
        (Listing, "values on the host: tolist"),
        (Masking, "aten.index by a mask"),
        (Sending, "aten.lift_fresh"),
        (Forgetting, "build it with `with_data`"),
        (Widening, "packets of shape"),
    ],
)
def test_laws_catch_what_is_not_static(check_streaming, samples, module, fault):
    with pytest.raises(AssertionError, match=fault):
        check_streaming(module(Window(5, 2, left=2, right=2)), samples, shortest=0)


@pytest.mark.parametrize(
    "window",
    [
        Window(1),
        Window(3, 2, left=2, right=1),
        Window(2, 5, right=1),
        Window(8, 3, left=4, right=2, reflect="left"),
        Window(4, 1, left=3, right=3, reflect="both"),
    ],
    ids=str,
)
def test_the_most_outputs_of_a_window(window):
    """The bound is never exceeded, and is met."""
    before = torch.arange(40)
    for inputs in range(12):
        last = torch.tensor([False, True])[:, None]
        new = window.outputs(before + inputs, last) - window.outputs(before, False)
        assert int(new.max()) == window.most_outputs(inputs)


def test_slide_ignores_what_lies_beyond_a_row():
    module = Convolution(Window(3, left=2, right=1))
    data = torch.tensor([[1.0, 2.0, float("nan"), float("inf")]])
    chunk = Chunk(data, torch.tensor([2]), torch.tensor([True]))
    (got,) = module.step(chunk, module.initial_state(1)).rows()
    assert torch.equal(got, module(data[:, :2])[0])
