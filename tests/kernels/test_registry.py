"""The list of operations, and the choice of an implementation."""

import importlib
import inspect
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from loquent.kernels import registry
from loquent.kernels.dtw import DTW
from loquent.kernels.registry import Operation, operations, use_backend

OPERATIONS = operations()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Set LOQUENT_BACKEND, which a process reads only once."""

    def set_to(name):
        monkeypatch.setenv("LOQUENT_BACKEND", name)
        registry._backend_of_environment.cache_clear()

    set_to("")
    yield set_to
    registry._backend_of_environment.cache_clear()


def chosen(*tensors, operation=DTW):
    """The back end that handles these tensors."""
    choice = operation.choose(*tensors)
    return next(name for name, one in operation.implementations.items() if one is choice)


def test_every_module_has_its_operations_in_the_list():
    modules = {one.reference.__module__.rpartition(".")[2] for one in OPERATIONS.values()}
    assert modules == {path.stem for path in Path(registry.__file__).parent.glob("*.py")} - {"registry", "cache_folder"}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_implementations_of_an_operation_are_alike(operation):
    assert callable(getattr(importlib.import_module(operation.reference.__module__), operation.name))
    expected = inspect.signature(operation.reference)
    for name, implementation in operation.implementations.items():
        assert inspect.signature(implementation) == expected, name


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_the_reference_takes_what_no_other_can(operation):
    needs_gradient = torch.zeros(1, requires_grad=True)
    for other in (torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, device="meta"), needs_gradient):
        assert chosen(torch.zeros(1), other, operation=operation) == "reference"
        assert chosen(other, operation=operation) == "reference"
    with use_backend("reference"):
        assert chosen(torch.zeros(1), operation=operation) == "reference"
    with use_backend("triton"):
        assert chosen(torch.zeros(1, device="meta"), operation=operation) == "reference"
        assert chosen(torch.zeros(1), operation=operation) != "triton", "it has no way to the CPU"


def test_single_precision_on_the_cpu_is_compiled():
    assert chosen(torch.zeros(1)) == "numba"
    with torch.no_grad():
        assert chosen(torch.zeros(1, requires_grad=True)) == "numba"


def test_a_back_end_without_an_implementation_leaves_it_to_the_reference(monkeypatch):
    monkeypatch.setattr(registry, "_operations", {})
    operation = Operation("plain", reference=lambda x: x)
    for name in (None, "numba", "triton"):
        monkeypatch.setattr(registry, "asked_backend", lambda name=name: name)
        assert chosen(torch.zeros(1), operation=operation) == "reference"
    with pytest.raises(ValueError, match="'plain' is registered twice"):
        Operation("plain", reference=lambda x: x)


def test_the_override_beats_the_environment_and_ends_with_its_block(environment):
    environment("reference")
    assert chosen(torch.zeros(1)) == "reference"
    with use_backend("numba"):
        assert chosen(torch.zeros(1)) == "numba"
        seen = []
        thread = threading.Thread(target=lambda: seen.append(chosen(torch.zeros(1))))
        thread.start()
        thread.join()
        assert seen == ["reference"], "another thread is not affected"
    assert chosen(torch.zeros(1)) == "reference"


def test_unknown_names_are_refused(environment):
    environment("cuda")
    with pytest.raises(ValueError, match="LOQUENT_BACKEND is 'cuda', expected one of reference, numba, triton"):
        DTW.choose(torch.zeros(1))
    with pytest.raises(ValueError, match="use_backend is 'fast'"), use_backend("fast"):
        pass


def test_the_cpu_keeps_its_own_where_triton_is_asked_for(environment):
    environment("triton")
    assert chosen(torch.zeros(1)) == "numba"


def test_listing_the_operations_does_not_import_a_compiler():
    code = (
        "import sys; from loquent.kernels.registry import operations; operations();"
        "sys.exit(bool({'numba', 'llvmlite', 'triton'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
