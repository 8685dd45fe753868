"""These tests run kernels in Triton's interpreter, which has to be chosen before Triton is first imported.

In a process of their own therefore, which `../test_interpreted_kernels.py` starts; elsewhere they are left out.
"""

from __future__ import annotations

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETED else ["test_*.py"]

if INTERPRETED:
    import numpy as np
    from triton.runtime import interpreter

    # Numbers are arrays of one element there, which numpy 2.4 no longer takes for the bound of a loop.
    patch = interpreter._patch_lang_tensor

    def patch_lang_tensor(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(np.asarray(self.handle.data).item()))

    interpreter._patch_lang_tensor = patch_lang_tensor
    np.seterr(all="ignore")  # padding is computed with, too


@pytest.fixture(autouse=True)
def same_numbers():
    """Every test draws the same numbers wherever it runs."""
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def dtype(request):
    """Of what a kernel reads and writes."""
    return request.param


@pytest.fixture(scope="session")
def check():
    """`check(run, *tensors)` calls ``run`` with copies of the tensors, under triton and, in float32, the reference.

    What it returns and what it leaves in the tensors must agree, to what the tensors' dtype can tell apart.
    """
    from loquent.kernels.registry import use_backend

    def results(backend, run, tensors):
        with use_backend(backend):
            out = run(*tensors)
        return [*(out if isinstance(out, tuple) else (out,)), *tensors]

    def compare(run, *tensors, tolerance=1.0):
        floats = [one for one in tensors if one.is_floating_point()]
        half = floats[0].dtype if floats else torch.float32
        widened = [(one.float() if one.dtype == half else one).clone() for one in tensors]
        expected = results("reference", run, widened)
        got = results("triton", run, [one.clone() for one in tensors])
        error = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[half] * tolerance
        for one, other in zip(got, expected, strict=True):
            if one is None:
                assert other is None
            elif one.is_floating_point():
                assert one.shape == other.shape
                torch.testing.assert_close(one.float(), other.float(), rtol=error, atol=error, equal_nan=True)
            else:
                assert torch.equal(one, other)
        return got

    return compare
