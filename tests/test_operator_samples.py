"""The layers around convolution agree with torch's on PyTorch's own samples: forward, gradients, second derivatives,
forward mode, vmap, and in the simulator."""

import random

import pytest
import torch

import convlab
import convlab.functional as CF

pytest.importorskip("expecttest", reason="which torch's samples of operators import")
with torch.backends.__allow_nonbracketed_mutation():  # the import would freeze torch's switches for every other test
    from torch.testing._internal.common_methods_invocations import op_db

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = (
    "conv1d",
    "conv_transpose1d",
    "conv_transpose2d",
    "max_pool1d",
    "avg_pool1d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "max_unpool2d",
    "prelu",
    "relu6",
)
OPERATORS = {op.name.removeprefix("nn.functional."): op for op in op_db if op.name.startswith("nn.functional.")}


def samples(name, dtype=torch.float64):
    """PyTorch's samples for a function, in a random order, but for those of nothing and of very much."""
    found = [s for s in OPERATORS[name].sample_inputs("cpu", dtype, True) if 0 < s.input.numel() < 3000]
    return random.Random(name).sample(found, len(found))


def of_floats(function, sample):
    """The floating-point tensors of a sample, and `function` of these: its first output."""
    arguments = (sample.input, *sample.args)
    places = [i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor) and a.is_floating_point()]

    def call(*tensors):
        full = list(arguments)
        for i, t in zip(places, tensors):
            full[i] = t
        y = function(*full, **sample.kwargs)
        return y[0] if isinstance(y, tuple) else y

    return [arguments[i].detach().clone().requires_grad_() for i in places], call


def derivatives(function, sample):
    """y, the gradients, second derivatives, a tangent, and y over a batch of each of the tensors"""
    tensors, call = of_floats(function, sample)
    torch.manual_seed(3)
    y = call(*tensors)
    dy = torch.randn(y.shape, dtype=y.dtype, requires_grad=True)
    gradients = torch.autograd.grad(y, tensors, dy, create_graph=True)
    scalar = sum((g * torch.randn(g.shape, dtype=g.dtype)).sum() for g in gradients)
    second = torch.autograd.grad(scalar, [*tensors, dy], allow_unused=True)
    second = [torch.zeros_like(t) if g is None else g for g, t in zip(second, [*tensors, dy])]
    plain = [t.detach() for t in tensors]
    tangents = torch.func.jvp(call, tuple(plain), tuple(torch.randn(t.shape, dtype=t.dtype) for t in plain))
    batches = []
    for wanted in range(len(plain) + 1):  # of one tensor, or of all of them
        batched = [wanted in (i, len(plain)) for i in range(len(plain))]
        inputs = (torch.stack([t, t / 2]) if b else t for t, b in zip(plain, batched))
        batches.append(torch.func.vmap(call, in_dims=tuple(0 if b else None for b in batched))(*inputs))
    return [y, *gradients, *second, *tangents, *batches], 1 + len(gradients)


def agrees(name, sample, simulated):
    ours, strided = derivatives(getattr(CF, name), sample)
    torchs, _ = derivatives(OPERATORS[name].op, sample)
    said = f"{name} of {tuple(sample.input.shape)}, {sample.args}, {sample.kwargs}"
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda text: f"{said}: {text}")
    for a, b in zip(ours[:strided], torchs):
        assert a.stride() == b.stride(), said
    if simulated:
        tensors, call = of_floats(getattr(CF, name), sample)
        with convlab.simulate():
            y = call(*tensors)
            torch.manual_seed(3)
            gradients = torch.autograd.grad(y, tensors, torch.randn(y.shape, dtype=y.dtype))
        for a, b in zip((y, *gradients), torchs):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda text: f"{said}, simulated: {text}")


@pytest.mark.parametrize("name", NAMES)
def test_some_samples(name):
    for i, sample in enumerate(samples(name)[:5]):
        agrees(name, sample, simulated=i == 0)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_all_samples(name):
    for i, sample in enumerate(samples(name)):
        agrees(name, sample, simulated=i % 8 == 0)


@pytest.mark.parametrize("name", NAMES)
def test_integers_and_half_precision(name):
    """Integers are exact; 16-bit floats are as near to float64 as torch's are, or within two roundings."""
    torchs, ours = OPERATORS[name].op, getattr(CF, name)
    for dtype in {torch.int64, torch.bfloat16, torch.float16} & set(OPERATORS[name].dtypes):
        floating = dtype.is_floating_point
        every = list(OPERATORS[name].sample_inputs("cpu", dtype, False))
        for sample in random.Random(name).sample(every, min(20, len(every))):
            y, expected = (f(sample.input, *sample.args, **sample.kwargs) for f in (ours, torchs))
            y, expected = (t[0] if isinstance(t, tuple) else t for t in (y, expected))
            assert (y.shape, y.dtype, y.stride()) == (expected.shape, expected.dtype, expected.stride())
            if not floating:
                assert torch.equal(y, expected)
            elif y.numel():
                wide = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in sample.args]
                kwargs = {k: a.double() if isinstance(a, torch.Tensor) else a for k, a in sample.kwargs.items()}
                exact = torchs(sample.input.double(), *wide, **kwargs)
                exact = exact[0] if isinstance(exact, tuple) else exact
                error, torch_error = ((t - exact).abs().max() for t in (y, expected))
                assert error <= max(torch_error, 2 * torch.finfo(dtype).eps * exact.abs().max())


def test_prelu_of_no_channels():
    assert CF.prelu(torch.randn(2, 0, 1), torch.randn(0)).shape == (2, 0, 1)


def test_what_relu6_gives_may_be_written_over():
    x = torch.tensor([-1.0, 0.0, 3.0, 6.0, 9.0, float("nan")], requires_grad=True)
    (dx,) = torch.autograd.grad(CF.relu6(x * 1).mul_(2).sum(), x)
    (expected,) = torch.autograd.grad(torch.nn.functional.relu6(x * 1).mul_(2).sum(), x)
    torch.testing.assert_close(dx, expected, equal_nan=True)
    (over,) = torch.autograd.grad(CF.relu6(x * 1, inplace=True).sum(), x)
    torch.testing.assert_close(2 * over, expected, equal_nan=True)
