"""Who takes what, where Triton interprets its kernels."""

from __future__ import annotations

import pytest
import torch

from loquent.kernels.registry import operations, use_backend

OPERATIONS = {name: one for name, one in operations().items() if "triton" in one.implementations}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_tensors_of_one_dtype_are_taken(operation, dtype):
    one, other = torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=torch.float64)
    with use_backend("triton"):
        assert operation.choose(one, one) is operation.implementations["triton"]
        assert operation.choose(one, other) is operation.reference
        assert operation.choose(one, torch.zeros(1, dtype=dtype, device="meta")) is operation.reference
        with torch.autocast("cpu", torch.bfloat16):
            assert operation.choose(one) is operation.reference
        with torch.enable_grad():
            assert operation.choose(one, torch.zeros(1, dtype=dtype, requires_grad=True)) is operation.reference
    assert operation.choose(one) is not operation.implementations["triton"]
