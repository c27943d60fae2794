"""Settings and fixtures for every test. Imports torch and pytest only, so that the suite runs on a bare GPU machine."""

import os

import pytest
import torch

# What a CPU kernel forgets to write is NaN, or 111 in integers (csrc/host/tensors.h); see also poisoned_memory below
os.environ["CONVLAB_POISON"] = "1"

torch.backends.cudnn.allow_tf32 = False  # no TF32, except in tests about it

torch.set_num_threads(1)  # tests run side by side, one process a core


def _missing_cuda():
    if not torch.cuda.is_available():
        return "no GPU"
    import convlab

    return None if convlab.build_info()["cuda"] else "convlab was built without CUDA"


def pytest_collection_modifyitems(items):
    reason = _missing_cuda()
    for item in items:
        if reason and item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    return request.param


@pytest.fixture(autouse=True)
def poisoned_memory():
    """In deterministic mode torch fills every new tensor with NaN (or the largest integer), on a GPU too."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=os.environ.get("CONVLAB_SANITIZE") == "1")
def no_simulator(monkeypatch):
    """`make sanitize` builds the CPU's kernels alone, which have run where a test goes on in a simulator."""
    monkeypatch.setattr("convlab.simulator._library", lambda check: pytest.skip("no simulator is built here"))


@pytest.fixture(autouse=True)
def seed(request):
    """The same random numbers in every run of a test, others in every test."""
    torch.manual_seed(sum(request.node.nodeid.encode()))
