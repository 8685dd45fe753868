"""Tensors travel between host and device in one piece, and nothing else waits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.speech.nn.transfer import Fetched, pack, staged, unpack

DTYPES = [torch.float32, torch.int64, torch.bool, torch.float16, torch.float64]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), min_size=1, max_size=6))
def test_what_is_packed_comes_out_again(kinds):
    torch.manual_seed(0)
    tensors = [torch.randint(2, shape).to(dtype) for dtype, shape in kinds]
    packed = pack(tensors)
    assert packed.dtype == torch.uint8
    for got, expected in zip(unpack(packed, tensors), tensors, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


def test_on_the_cpu_nothing_is_copied():
    tensors = torch.zeros(3), torch.ones(2, dtype=torch.bool)
    assert all(got is given for got, given in zip(Fetched(*tensors).wait(), tensors, strict=True))


@pytest.mark.parametrize("values", [[], [1, 2], [[True], [False]], [0.5]])
def test_numbers_are_staged_without_waiting(values, refuse_waiting):
    dtype = np.asarray(values).dtype
    with refuse_waiting():
        tensor = staged(values, "cpu", dtype)
    assert tensor.tolist() == values
