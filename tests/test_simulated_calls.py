"""Whoever calls convlab inside `simulate()` is simulated: nothing is left out silently, and what a GPU has no kernels for is
refused as on a GPU."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import convlab
import convlab.functional as CF


@pytest.fixture(scope="module")
def model():
    return convlab.convert(nn.Sequential(nn.Conv2d(2, 3, 3), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.AvgPool2d(2)))


X = torch.randn(2, 2, 11, 10)


def warm(compiled):
    compiled(X)
    return compiled


# what calls the model, made outside of the simulation
CALLERS = {
    "itself": lambda model: model,
    "compiled before": lambda model: warm(torch.compile(model, backend="aot_eager")),
    "compiled by inductor before": lambda model: warm(torch.compile(copy.deepcopy(model).requires_grad_(False))),
    "compiled inside": lambda model: lambda x: torch.compile(model, backend="aot_eager", dynamic=True)(x),
    "traced": lambda model: torch.jit.trace(copy.deepcopy(model).eval(), X),
    "frozen": lambda model: torch.jit.freeze(torch.jit.trace(copy.deepcopy(model).eval(), X)),
    "exported": lambda model: torch.export.export(copy.deepcopy(model), (X,)).module(),
    "traced by fx": lambda model: torch.fx.symbolic_trace(model),
    "vmap": lambda model: torch.func.vmap(model),
    "the value of a gradient": lambda model: lambda x: torch.func.vjp(model, x)[0],
    "checkpointed": lambda model: lambda x: checkpoint(model, x, use_reentrant=False),
    "checkpointed, reentrant": lambda model: (
        lambda x: checkpoint(model, x.clone().requires_grad_(), use_reentrant=True)
    ),
    "a functional call": lambda model: lambda x: torch.func.functional_call(model, dict(model.named_parameters()), x),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "caller", [pytest.param(name, marks=[pytest.mark.long] if "inductor" in name else []) for name in CALLERS]
)
def test_callers(caller, model):
    expected = model(X)
    call = CALLERS[caller](model)
    with convlab.simulate(check=False) as sim:
        y = call(X)
    kernels = [launch.kernel.split("<")[0] for launch in sim.launches]
    # samples together, or one by one; in a graph activations and average pooling are torch's
    assert len(kernels) in {"vmap": (4, 8), "exported": (2,)}.get(caller, (4,)), kernels
    torch.testing.assert_close(y, expected)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_contexts(context, model):
    with convlab.simulate(check=False) as sim, context():
        model(X)
    inside = len(sim.launches)
    with context(), convlab.simulate(check=False) as sim:
        model(X)
    assert len(sim.launches) == inside == 4


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_integers_are_refused_as_on_a_gpu(dtype):
    x = torch.randint(0, 9, (1, 2, 6, 6)).to(dtype)
    calls = {
        "conv2d": lambda: CF.conv2d(x, x[:, :, :3, :3]),
        "max_pool2d": lambda: CF.max_pool2d(x, 2),
        "avg_pool2d": lambda: CF.avg_pool2d(x, 2),
    }
    with convlab.simulate() as sim:
        for name, call in calls.items():
            with pytest.raises(NotImplementedError, match=f"{name}: input is .*int.*; on the CPU, not simulated, also"):
                call()
        assert torch.equal(CF.relu(x - 4), torch.relu(x - 4))  # torch's on every device: no kernel, no launch
    assert not sim.launches
    for name, call in calls.items():
        if name != "avg_pool2d" or dtype is torch.int64:
            assert call().dtype is dtype


def test_what_has_no_kernel_on_a_gpu_launches_nothing(model):
    with convlab.simulate() as sim:
        assert model(X[:0]).shape == (0, 3, 2, 2)
    assert not sim.launches
