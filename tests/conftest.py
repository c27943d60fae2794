"""What every test has. Imports torch and pytest only, so that the suite runs on a bare GPU machine."""

import os

import pytest
import torch

os.environ["CONVLAB_POISON"] = (
    "1"  # csrc/host/tensors.h: what a CPU kernel forgets to write, shows; see also poisoned_memory below
)

torch.backends.cudnn.allow_tf32 = False  # float32 is float32, but where TF32 is a test's subject

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
    """In deterministic mode torch fills every new tensor with NaN (or the largest integer), also those on a GPU."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seed(request):
    """The same random numbers in every run of a test, others in every test."""
    torch.manual_seed(sum(request.node.nodeid.encode()))
