"""leaky_relu and relu are torch's: values, gradients, special values, layouts, in place."""

import contextlib

import pytest
import torch
import torch.nn.functional as F

import convlab
import convlab.functional as CF
from convlab import ops
from convlab.testing import DTYPES, check_leaky_relu, check_relu

CASES = {"relu": (CF.relu, F.relu), "leaky_relu": (CF.leaky_relu, F.leaky_relu)}


def test_values_and_gradients(device):
    """To the last bit, special values too, in every dtype and layout: what convlab.testing looks at."""
    check_relu(CF.relu, dtypes=DTYPES, gradients=True, device=device)
    check_leaky_relu(CF.leaky_relu, dtypes=DTYPES, gradients=True, device=device)
    check_leaky_relu(lambda x, slope: CF.leaky_relu(x), slopes=[0.01], dtypes=DTYPES, device=device)  # the default


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "relu6"])
def test_layouts(name, device):
    x = torch.randn(4, 6, 5, 8, device=device)
    views = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(0, 3),
        "sliced": x[1:, ::2, :, 1:-1],
        "expanded": x[:1, :, :1].expand(3, -1, 4, -1),
        "one channel": x[:, :1].contiguous(memory_format=torch.channels_last),
        "one channel, contiguous": x[:, :1].contiguous(),
    }
    ours, torchs = IN_PLACE[name]
    for layout, view in views.items():
        view = view.detach().requires_grad_()
        y, expected = ours(view), torchs(view)
        assert torch.equal(y, expected), layout
        assert y.stride() == expected.stride(), layout
        for dy in (torch.randn_like(y), torch.randn_like(y.contiguous()), torch.ones(1, device=device).expand_as(y)):
            (dx,), (expected_dx,) = (
                torch.autograd.grad(y, view, dy, retain_graph=True),
                torch.autograd.grad(expected, view, dy, retain_graph=True),
            )
            assert torch.equal(dx, expected_dx), layout


@pytest.mark.parametrize("ours,torchs", [(CF.relu, F.relu), (CF.leaky_relu, F.leaky_relu)], ids=["relu", "leaky_relu"])
def test_in_place(ours, torchs, device):
    x = torch.randn(2, 3, 5, 7, device=device, requires_grad=True)
    gradients = []
    for f in (ours, torchs):
        h = x * 2
        view, version = h[:, 1:], h._version
        out = f(view, inplace=True)
        assert out is view and h._version > version
        gradients.append(torch.autograd.grad((h * h).sum(), x)[0])
    assert torch.equal(*gradients)


IN_PLACE = CASES | {"relu6": (CF.relu6, F.relu6)}


@pytest.mark.parametrize("backend", ["cpu", "checking simulator"])
@pytest.mark.parametrize("shape", ["contiguous", "channels_last", "transposed", "sliced", "less than a byte", "empty"])
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_is_torchs(name, shape, backend):
    """Values, gradients of two orders and versions, with a gradient, without, and in inference mode"""
    x = SHAPES[shape](3 * drawn((3, 6, 5, 47)))
    if name == "relu6":
        x = x.nan_to_num(1)  # torch's gradients there differ between a CPU and CUDA
    x, results = x.detach().requires_grad_(), []
    with contextlib.nullcontext() if backend == "cpu" else convlab.simulate(check=True):
        for f in IN_PLACE[name]:
            h = torch.empty_like(x).copy_(x) if shape != "sliced" else torch.cat([x] * 2, 3)[..., ::2]
            before = h._version
            out = f(h, inplace=True)
            assert out is h
            (dx,) = torch.autograd.grad((out * out).sum(), x, create_graph=True)
            results.append([out, dx, *torch.autograd.grad((dx * dx).sum(), x)])
            version = h._version - before
            for mode in (torch.no_grad, torch.inference_mode):
                with mode():
                    h = x.detach().clone()
                    before = None if mode is torch.inference_mode else h._version
                    out = f(h, inplace=True)
                    assert out is h and (before is None or h._version == before + version == before + 1)
                    results[-1].append(out.clone())
    for ours, torchs in zip(*results):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("wants_gradient", [False, True])
def test_in_place_reads_and_writes_once(name, wants_gradient):
    """One operator of ours, and no output to copy from"""
    x = torch.randn(2, 3, 5, 7, requires_grad=wants_gradient) * 2
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        IN_PLACE[name][0](x, inplace=True)
    names = [event.name for event in profile.events()]
    assert [name for name in names if "convlab" in name] == [f"convlab::{name}_"] and "aten::copy_" not in names


def test_in_place_where_somebody_watches():
    """Modes, transforms and subclasses see what torch does in place."""

    class Seen(torch.Tensor):
        pass

    def over(f, x):
        return f(x.clone(), inplace=True)

    x, t = torch.randn(4, 3), torch.randn(4, 3)
    for ours, torchs in IN_PLACE.values():
        for watched in (
            lambda f: torch.func.jvp(lambda x: over(f, x), (x,), (t,))[1],
            lambda f: torch.func.vmap(lambda x: over(f, x))(x),
            lambda f: torch.func.grad(lambda x: over(f, x).square().sum())(x),
            lambda f: over(f, x.as_subclass(Seen)),
            lambda f: f((2 * x)[:2], inplace=True),
        ):
            assert torch.equal(watched(ours), watched(torchs))
        made = torch.func.functionalize(lambda x, f=ours: over(f, x))(x)  # which torch's own relu6 refuses in place
        assert torch.equal(made, torchs(x))
        traced = torch.jit.trace(lambda x, f=ours: over(f, x), x, check_trace=False)
        assert torch.equal(traced(t), over(torchs, t))


@pytest.mark.parametrize("f", [CF.relu, CF.leaky_relu, F.relu, F.leaky_relu])
def test_in_place_errors_are_torchs(f, device):
    leaf = torch.randn(3, device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        f(leaf, inplace=True)
    h = torch.randn(3, device=device, requires_grad=True) * 2
    y = h * h  # needs h as it is
    f(h, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("f", [CF.leaky_relu, F.leaky_relu], ids=["ours", "torchs"])
def test_in_place_with_negative_slope_has_no_gradient(f, device):
    x = torch.randn(3, device=device, requires_grad=True)
    y = f(x * 1, -0.5, inplace=True)
    with pytest.raises(RuntimeError, match="slope"):
        y.sum().backward()


def drawn(shape, dtype=torch.float32):
    """With what is no number, and both zeros"""
    x = torch.randn(shape).to(dtype)
    x.view(-1)[:4] = torch.tensor([float("nan"), 0.0, -0.0, -float("inf")])[: x.numel()]
    return x


SHAPES = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "not at a multiple of 16 bytes": lambda x: x.flatten()[1:],
    "transposed": lambda x: x.transpose(0, 3),
    "sliced": lambda x: x[1:, ::2, :, 1:-1],
    "some bytes": lambda x: x.flatten()[:16],
    "less than a byte": lambda x: x.flatten()[:5],
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("backend", ["cpu", "simulator", "checking simulator"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_bits(shape, dtype, backend):
    """The kernels keep a bit an element, and the gradients of two orders are torch's."""
    x = SHAPES[shape](drawn((3, 6, 5, 47), dtype)).detach().requires_grad_()
    dy = torch.randn_like(x).requires_grad_()
    results, saved = [], []
    with (
        contextlib.nullcontext() if backend == "cpu" else convlab.simulate(check=backend.startswith("checking")),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        for f in (CF.leaky_relu, F.leaky_relu):
            y = f(x, -0.3)
            (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
            (ddy,) = torch.autograd.grad(dx, dy, dx.detach())
            results.append((y, dx, ddy))
            if f is CF.leaky_relu:
                as_bits = shape not in ("transposed", "sliced")
                kept = (torch.uint8, (x.numel() + 7) // 8) if as_bits else (torch.bool, x.numel())
                assert {(t.dtype, t.numel()) for t in saved} == {kept}
    for ours, torchs in zip(*results):
        torch.testing.assert_close(ours, torchs, rtol=0, atol=0, equal_nan=True)
        assert ours.stride() == torchs.stride()


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("shape", ["contiguous", "channels_last", "less than a byte"])
def test_bits_under_transforms(shape, simulated):
    """What was kept as bits is read as bools where a gradient has a batch."""
    x = SHAPES[shape](torch.randn(3, 6, 5, 7)).detach().requires_grad_()
    dy = torch.randn(4, *x.shape)
    with convlab.simulate(check=False) if simulated else contextlib.nullcontext():
        ours, torchs = (
            torch.autograd.grad(f(x, 0.2), x, dy, is_grads_batched=True)[0] for f in (CF.leaky_relu, F.leaky_relu)
        )
        assert torch.equal(ours, torchs)
        many = torch.stack([x.detach()] * 2, -1)
        ours, torchs = (
            torch.func.vmap(torch.func.grad(lambda x, f=f: f(x, 0.2).sin().sum()), -1)(many)
            for f in (CF.leaky_relu, F.leaky_relu)
        )
        torch.testing.assert_close(ours, torchs)
        ours, torchs = (
            torch.func.jvp(lambda x, f=f: f(x, 0.2), (x.detach(),), (dy[0],))[1] for f in (CF.leaky_relu, F.leaky_relu)
        )
        assert torch.equal(ours, torchs)


def test_bits_are_in_the_order_of_memory():
    x = torch.randn(2, 3, 5, 7)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=layout)
        last = layout is torch.channels_last
        with convlab.simulate():
            _, bits = ops.leaky_relu_forward(x, 0.1, True, True)
            with pytest.raises(RuntimeError, match=r"positive is .*, expected"):
                ops.leaky_relu_backward(x, bits[1:], 0.1, last)
        assert torch.equal(ops.bools_of(bits, x.shape, last), x > 0)
        assert bits[-1] >> 2 == 0  # 210 elements
