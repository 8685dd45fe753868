"""Choice of the implementation, and the cache of compiled kernels."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from loquent.kernels.registry import backend_for, use_backend


def test_single_precision_on_the_cpu_is_compiled(monkeypatch):
    monkeypatch.delenv("LOQUENT_BACKEND", raising=False)
    assert backend_for(torch.zeros(1)) == "numba"
    assert backend_for(torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)) == "reference"
    assert backend_for(torch.zeros(1, device="meta")) == "reference"


def test_tensors_that_need_a_gradient_take_the_reference(monkeypatch):
    monkeypatch.delenv("LOQUENT_BACKEND", raising=False)
    weight = torch.zeros(1, requires_grad=True)
    assert backend_for(weight) == "reference"
    with torch.no_grad():
        assert backend_for(weight) == "numba"


def test_the_override_beats_the_environment_and_ends_with_its_block(monkeypatch):
    monkeypatch.setenv("LOQUENT_BACKEND", "reference")
    assert backend_for(torch.zeros(1)) == "reference"
    with use_backend("numba"):
        assert backend_for(torch.zeros(1)) == "numba"
        seen = []
        thread = threading.Thread(target=lambda: seen.append(backend_for(torch.zeros(1))))
        thread.start()
        thread.join()
        assert seen == ["reference"], "another thread is not affected"
    assert backend_for(torch.zeros(1)) == "reference"


def test_unknown_names_are_refused(monkeypatch):
    monkeypatch.setenv("LOQUENT_BACKEND", "cuda")
    with pytest.raises(ValueError, match="LOQUENT_BACKEND is 'cuda', expected one of reference, numba"):
        backend_for(torch.zeros(1))
    with pytest.raises(ValueError, match="use_backend is 'fast'"), use_backend("fast"):
        pass


def test_importing_the_operations_does_not_import_numba():
    code = (
        "import sys, loquent.kernels.cached_attention, loquent.kernels.cross_attention, loquent.kernels.conv_step;"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_read_only_installation_is_cached_in_the_users_folder(tmp_path):
    source = tmp_path / "site" / "kernel_under_test.py"
    source.parent.mkdir()
    source.write_text(
        "from loquent.kernels.cpu.runtime import HEADER, integers, loop, next_task, run\n"
        "from numba import carray\n"
        "import numpy as np\n"
        "@loop\n"
        "def count(data):\n"
        "    job = carray(data, (3,), np.int64)\n"
        "    while next_task(data) < job[1]:\n"
        "        job[2] += 1\n"
        "run(count, 3, 0, 0)\n"
    )
    (source.parent / "__pycache__").write_text("a file here leaves no place for a cache beside the source")
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(source.parent)}
    environment.pop("NUMBA_CACHE_DIR", None)
    for _ in range(2):
        subprocess.run([sys.executable, "-c", "import kernel_under_test"], env=environment, check=True)
    indexes = list(home.rglob("*.nbi"))
    assert len(indexes) == 1, [str(path.relative_to(home)) for path in home.rglob("*")]
    assert len(list(home.rglob("*.nbc"))) == 1, "the second process must load what the first compiled"
