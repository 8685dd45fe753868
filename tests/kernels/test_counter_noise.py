"""Counter-based noise: one function of seed, frame and place, normal, and the same on every back end."""

import math

import pytest
import torch

from loquent.kernels.counter_noise import GAMMA, _mix, counter_noise
from loquent.kernels.registry import use_backend

BACKENDS = pytest.mark.parametrize("backend", ["reference", "numba"])
GOLDEN = [
    [-1.2207160, 0.32461485, 1.0100287, -1.5372454, 0.06091054],
    [0.16012937, 1.2837965, 1.5371515, -0.01933002, 0.52138478],
]
SEEDS = torch.tensor([0, 1, 2**63 - 1, -7])


def noise(seeds, frames, size, backend="reference"):
    with use_backend(backend):
        return counter_noise(seeds, frames, size)


def test_the_mixer_is_that_of_splitmix64():
    # The first values of the published generator with seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    got = _mix(1234567 + torch.arange(1, 5) * GAMMA)
    assert [int(value) % 2**64 for value in got] == expected


@BACKENDS
def test_values_are_part_of_every_voice_and_stay_as_they_are(backend):
    got = noise(torch.tensor([3]), torch.tensor([[0, 5]]), 5, backend)
    expected = torch.tensor(GOLDEN)
    torch.testing.assert_close(got[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7, 1202])
def test_compiled_code_gives_what_the_reference_gives(size):
    frames = torch.arange(6)[None] + torch.tensor([0, 2**40, -3, 11])[:, None]
    expected = noise(SEEDS, frames, size)
    assert expected.shape == (4, 6, size)
    torch.testing.assert_close(noise(SEEDS, frames, size, "numba"), expected, rtol=1e-5, atol=2e-6)
    # Any strides, no rows, no frames.
    torch.testing.assert_close(noise(SEEDS, frames.T.contiguous().T, size, "numba"), expected, rtol=1e-5, atol=2e-6)
    assert noise(SEEDS[:0], frames[:0], size, "numba").shape == (0, 6, size)
    assert noise(SEEDS, frames[:, :0], size, "numba").shape == (4, 0, size)


@BACKENDS
def test_a_frame_is_the_same_bits_in_any_chunk_and_company(backend):
    frames = torch.arange(20).expand(4, 20)
    whole = noise(SEEDS, frames, 33, backend)
    parts = [noise(SEEDS, part, 33, backend) for part in frames.split([1, 7, 12], dim=1)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    alone = [noise(SEEDS[row : row + 1], frames[:1], 33, backend) for row in (3, 1)]
    assert torch.equal(torch.cat(alone), whole[[3, 1]])


@BACKENDS
def test_values_are_normal(backend):
    x = noise(SEEDS, torch.arange(500).expand(4, 500), 200, backend).double().flatten()
    error = len(x) ** -0.5  # of a mean
    assert torch.isfinite(x).all()
    assert abs(x.mean()) < 4 * error
    assert abs(x.square().mean() - 1) < 4 * error * math.sqrt(2)
    assert abs((x**3).mean()) < 4 * error * math.sqrt(15)
    assert abs((x**4).mean() - 3) < 4 * error * math.sqrt(96)
    levels = torch.tensor([-3.0, -2, -1, -0.5, 0, 0.5, 1, 2, 3], dtype=torch.double)
    below = (x[:, None] < levels).double().mean(0)
    expected = torch.distributions.Normal(0.0, 1.0).cdf(levels)
    assert ((below - expected).abs() < 4 * error * (expected * (1 - expected)).sqrt()).all()


def test_neighbours_have_nothing_in_common():
    seeds, frames = torch.arange(8), torch.arange(200).expand(8, 200)
    x = noise(seeds, frames, 64)
    for shifted in (
        (x[1:], x[:-1]),  # seeds
        (x[:, 1:], x[:, :-1]),  # frames
        (x[:, :, 1:], x[:, :, :-1]),  # places
        (x[:, :, 32:], x[:, :, :32]),  # the two values of one number
        (x[1:, :-1], x[:-1, 1:]),
    ):
        a, b = (part.flatten().double() for part in shifted)
        assert abs((a * b).mean()) < 4 * len(a) ** -0.5
        assert abs(((a.square() - 1) * (b.square() - 1)).mean()) < 8 * len(a) ** -0.5
    assert len(x.flatten().unique()) > 0.99 * x.numel()


def test_it_is_made_without_waiting_for_the_device(refuse_waiting):
    with refuse_waiting(), use_backend("reference"):
        counter_noise(SEEDS, torch.arange(5).expand(4, 5), 10)
