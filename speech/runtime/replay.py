"""A step of a model as a graph: what it launches is recorded once for every shape, and replayed as a whole."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk

Outputs = tuple[Tensor, ...]
Function = Callable[..., Outputs]  # of a chunk, a pool, rows and more tensors
Capture = Callable[[Callable[[], Outputs]], tuple[Callable[[], None], Outputs]]

WARM_UP = 3  # runs before a capture: kernels get compiled, libraries make their plans


class Replay:
    """A function (chunk, state, rows, *more) -> tensors that waits for nothing, with one graph for each shape.

    A graph is made when its shape first comes, from a call in which every row is empty and in the pool's last slot,
    which is no stream's. It reads and writes the tensors of the pool, which have to stay where they are; with the first
    of these, by which pools are told apart, the pool's graphs go. Without graphs, as on the CPU or for a chunk that is
    not static, the function is called.

    Args:
        function: gives tensors; it changes the pool in place, and of a slot whose rows are empty nothing.
        capture: makes a graph of a call; by default CUDA's on a CUDA device, and none elsewhere.
    """

    def __init__(self, function: Function, capture: Capture | None = None) -> None:
        self.function, self._capture = function, capture
        self._graphs: dict[int, dict[tuple[Any, ...], _Graph]] = {}  # by the id of a pool's first tensor

    def __call__(self, chunk: Chunk, state: State, rows: Tensor, *more: Tensor) -> Outputs:
        """The function's results; they are copies, which later calls leave alone."""
        capture = self._capture or (cuda_graph if chunk.data.is_cuda else None)
        if capture is None or not chunk.static:
            return self.function(chunk, state, rows, *more)
        inputs = (chunk.data, chunk.length, chunk.last, rows, *more)
        graphs, key = self._graphs_of(state), tuple((tuple(one.shape), one.dtype) for one in inputs)
        graph = graphs.get(key)
        if graph is None:
            graph = graphs[key] = self._captured(capture, state, inputs)
        for mine, new in zip(graph.inputs, inputs, strict=True):
            mine.copy_(new, non_blocking=True)
        graph.replay()
        return tuple(one.clone() for one in graph.outputs)

    def _graphs_of(self, state: State) -> dict[tuple[Any, ...], _Graph]:
        first = next(state.leaves())[1]
        graphs = self._graphs.get(id(first))
        if graphs is None:
            graphs = self._graphs[id(first)] = {}
            weakref.finalize(first, self._graphs.pop, id(first), None).atexit = False
        return graphs

    def _captured(self, capture: Capture, state: State, inputs: tuple[Tensor, ...]) -> _Graph:
        held = tuple(torch.zeros_like(one) for one in inputs)
        data, length, last, rows, *more = held
        rows.fill_(state.slots - 1)

        def run() -> Outputs:
            return self.function(Chunk(data, length, last, static=True), state, rows, *more)

        return _Graph(held, *capture(run))


class _Graph(NamedTuple):
    """A recorded call: the tensors it reads beside the pool's, what runs it again, the tensors it writes."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    outputs: Outputs


def cuda_graph(run: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
    """Record a call on the current CUDA device, which waits; returns what runs it again, and its results."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()
    return graph.replay, outputs
