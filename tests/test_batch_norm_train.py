"""Batch normalization in training, with the activation behind it, is one call where nobody sees what is between: torch's
numbers, running statistics and gradients."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from test_batch_norm import ACTIVATIONS, TOLERANCES, Operators, layouts
from torch import nn
from torch.utils.checkpoint import checkpoint

import convlab
from convlab import ops
from convlab._batch_norm import Arguments, batch_norm

SHAPES = [
    (2, 5, 7, 3),
    (3, 16, 1, 1),
    (1, 1, 4, 9),
    (2, 33, 5, 4),
    (3, 3, 90, 95),
    (40, 130, 3, 3),
    (17, 70, 1, 9),
    (9, 4),
    (300, 7, 2, 2),
]


def near(a, b, tolerance):
    """Within so much of the largest: of what is nearly zero the sum of what is not has lost more."""
    assert a.shape == b.shape
    torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=tolerance * (float(b.abs().max()) + 1e-3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_forward_and_backward(dtype):
    for shape, (number, activation), affine in itertools.product(SHAPES, ACTIVATIONS, (True, False)):
        channels, tolerance = shape[1], TOLERANCES[dtype]
        x, dy = (2 * torch.randn(shape) + 1).to(dtype), torch.randn(shape).to(dtype)
        gamma_beta = [torch.randn(channels).to(dtype) if affine else None for _ in range(2)]
        running = [torch.randn(channels).to(dtype), torch.rand(channels).to(dtype)]
        wide = [None if t is None else t.double().requires_grad_() for t in (x, *gamma_beta)]
        of_wide = [t.to(torch.float64, copy=True) for t in running]
        normalized = F.batch_norm(wide[0], *of_wide, *wide[1:], True, 0.2, 0.1)
        for edge in (0, 6):  # where rounding decides what passes
            dy[(normalized - edge).abs() < 7 * tolerance] = 0
        expected = activation(normalized)
        gradients = torch.autograd.grad(expected, [t for t in wide if t is not None], dy.double())
        for laid in layouts(x) if len(shape) == 4 else [x]:
            followed = [t.clone() for t in running]
            y, terms = ops.batch_norm_train(laid, *gamma_beta, *followed, 0.2, 0.1, number, -0.3)
            near(y, expected.detach(), tolerance)
            assert y.stride() == ops.relu_forward(laid).stride()
            for ours, theirs in zip(followed, of_wide):
                near(ours, theirs, tolerance)
            made = ops.batch_norm_train_backward(dy, laid, terms, number, -0.3)
            assert made[0].stride() == y.stride()
            for ours, theirs in zip(made, gradients):
                near(ours, theirs, tolerance)


def test_a_mean_far_from_zero_costs_little_accuracy():
    for size, first in ((28, 1), (2, 1), (28, 0)):
        x = torch.randn(8, 24, size, size) + 5000 * torch.randn(1, 24, 1, 1)
        x[0, :, 0, 0] *= first
        expected = (x.double().var((0, 2, 3), correction=0) + 1e-5).rsqrt()
        for laid in layouts(x):
            _, (mean, rstd, *_) = ops.batch_norm_train(laid, None, None, None, None, 0.1, 1e-5, 0, 1.0)
            torch.testing.assert_close(rstd.double(), expected, rtol=4e-6, atol=0)
            torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-7, atol=1e-6)


def test_equal_elements_have_no_variance():
    x = torch.rand(1, 40, 200, 50)
    x[:] = 1e5 * torch.randn(1, 40, 1, 1)
    for laid in layouts(x):
        running = torch.zeros(40), torch.ones(40)
        y, terms = ops.batch_norm_train(laid, None, None, *running, 1.0, 1e-5, 0, 1.0)
        assert y.isfinite().all() and terms.isfinite().all() and (running[1] >= 0).all()


def test_bits_do_not_depend_on_threads():
    before = torch.get_num_threads()
    pair = torch.randn(2, 6, 48, 70, 50).relu_().unbind()
    for x, dy in (pair, [t.contiguous(memory_format=torch.channels_last) for t in pair], torch.randn(2, 300, 64, 3, 3)):
        results = []
        try:
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                made = ops.batch_norm_train(x, None, None, None, None, 0.1, 1e-5, 1, 1.0)
                results.append((*made, *ops.batch_norm_train_backward(dy, x, made[1], 1, 1.0)))
        finally:
            torch.set_num_threads(before)
        for others in results[1:]:
            assert all(map(torch.equal, results[0], others))


def test_nan_stays_in_its_channel():
    x = torch.randn(2, 3, 4, 4)
    x[1, 1, 2, 2] = float("nan")
    for laid in layouts(x):
        y, _ = ops.batch_norm_train(laid, None, None, None, None, 0.1, 1e-5, 1, 1.0)
        assert y[:, 1].isnan().all() and not y[:, ::2].isnan().any()


def test_wrong_arguments():
    x, one = torch.randn(2, 3, 4, 4), torch.ones(3)
    rest = (0.1, 1e-5, 0, 1.0)
    with pytest.raises(RuntimeError, match=r"input is \[1, 3, 1, 1\], expected two or more values for each channel"):
        ops.batch_norm_train(x[:1, :, :1, :1], None, None, None, None, *rest)
    with pytest.raises(RuntimeError, match="expected two or more values"):
        ops.batch_norm_train(x[0, 0, 0], None, None, None, None, *rest)
    with pytest.raises(RuntimeError, match=r"running_mean is \[2\], expected \[3\]"):
        ops.batch_norm_train(x, one, one, one[:2], one, *rest)
    with pytest.raises(RuntimeError, match="weight of the normalization is float64 but input is float32"):
        ops.batch_norm_train(x, one.double(), one, None, None, *rest)
    with pytest.raises(RuntimeError, match="input is bfloat16, expected float32 or float64"):
        ops.batch_norm_train(x.bfloat16(), None, None, None, None, *rest)
    with pytest.raises(RuntimeError, match="activation number 4"):
        ops.batch_norm_train(x, None, None, None, None, 0.1, 1e-5, 4, 1.0)
    with pytest.raises(RuntimeError, match=r"grad_output is \[2, 3, 4\], expected \[2, 3, 4, 4\]"):
        ops.batch_norm_train_backward(x[..., 0], x, torch.ones(4, 3), 0, 1.0)
    with pytest.raises(RuntimeError, match="terms is float64"):
        ops.batch_norm_train_backward(x, x, torch.ones(4, 3).double(), 0, 1.0)
    with pytest.raises(RuntimeError, match=r"terms is \[3\], expected \[4, 3\]"):
        ops.batch_norm_train_backward(x, x, one, 0, 1.0)


# ---- where fuse makes it of layers ----------------------------------------------------------------------------------

NETWORKS = {
    "chain": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    ),
    "pooled before": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.MaxPool2d(2), nn.LeakyReLU(0.1)
    ),
    "alone": lambda: nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.ReLU6(), nn.Conv2d(3, 2, 3)),
    "no statistics": lambda: nn.Sequential(
        nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, track_running_stats=False), nn.LeakyReLU(-0.5)
    ),
    "no activation": lambda: nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, eps=0.5)),
}


def pair(make):
    model = make().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model, convlab.fuse(copy.deepcopy(model))


@pytest.fixture
def calls(monkeypatch):
    made = []
    for name in ("batch_norm_train", "batch_norm_train_backward"):
        operator = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *a, name=name, operator=operator: (made.append(name), operator(*a))[1])
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_fused_layers_train_as_they_did(name, calls):
    model, fused = pair(NETWORKS[name])
    x = torch.randn(3, 3, 8, 8, dtype=torch.double, requires_grad=True)
    for step, training in enumerate((True, True, False, True)):
        calls.clear()
        outputs = [m.train(training)(x) for m in (model, fused)]
        torch.testing.assert_close(*outputs)
        gradients = [torch.autograd.grad(y.sin().sum(), [x, *m.parameters()]) for y, m in zip(outputs, (model, fused))]
        torch.testing.assert_close(*gradients)
        of_batch = training or name == "no statistics"
        assert calls == (["batch_norm_train", "batch_norm_train_backward"] if of_batch else []), step
        torch.testing.assert_close(dict(fused.named_buffers()), dict(model.named_buffers()))
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x))


@pytest.mark.parametrize("name", ["chain", "alone", "no statistics"])
def test_derivatives_of_any_order(name):
    fused = pair(NETWORKS[name])[1]
    x = torch.randn(2, 3, 5, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(fused, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(fused, x)


def test_torchs_where_somebody_sees(calls):
    _, fused = pair(NETWORKS["chain"])
    x = torch.randn(3, 3, 8, 8, dtype=torch.double)
    with Operators() as mode:
        fused(x)
    assert "aten::native_batch_norm" in mode.names
    torch.testing.assert_close(*(torch.func.jvp(m, (x,), (x.cos(),)) for m in pair(NETWORKS["no statistics"])))
    handle = fused[1].register_forward_hook(lambda *_: None)
    fused(x)
    handle.remove()
    with torch.autocast("cpu"):
        fused.float()(x.float())  # statistics are of another type than what is normalized
    fused.bfloat16()(x.bfloat16())  # torch's is as fast
    assert not calls
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused.float()(torch.randn(1, 3, 4, 4)[..., :3, :3])
    assert not calls


def test_derivatives_beyond_the_first_have_the_forwards_mask():
    """Where an element is its channel's mean, what is left by rounding decides whether it passes."""
    x = torch.randint(3, (8, 64, 4, 3)).mul(3.0) + torch.randn(1, 64, 1, 1)
    for dtype, scale in itertools.product((torch.float32, torch.float64), (1, 0.3)):
        fused = convlab.fuse(nn.Sequential(nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 1, 1))).to(dtype)
        norm, rest = fused[0], (0.1, 1e-5, ops.ACTIVATIONS["relu"], 1.0)
        y = batch_norm(x.to(dtype) * scale, norm.weight, norm.bias, Arguments(None, None, *rest))
        for create_graph in (False, True):
            (gradient,) = torch.autograd.grad(y.sum(), norm.bias, retain_graph=True, create_graph=create_graph)
            torch.testing.assert_close(gradient, (y > 0).sum((0, 2, 3)).to(dtype), rtol=0, atol=0)


class Twice(nn.Module):
    """One norm for two convolutions, in the other order"""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        first, second = self.first(x), self.second(x)
        return self.norm(second).relu() - self.norm(first).relu()


def test_a_norm_is_called_in_the_forwards_order(calls):
    model, fused = pair(Twice)
    x = torch.randn(3, 3, 8, 8, dtype=torch.double)
    torch.testing.assert_close(fused(x), model(x))
    torch.testing.assert_close(dict(fused.named_buffers()), dict(model.named_buffers()))
    assert calls.count("batch_norm_train") == 2


def test_other_tensors_for_parameters(calls):
    """As meta-learning does: tensors with a gradient of their own where a layer had parameters."""
    model, fused = pair(NETWORKS["chain"])
    x, gradients = torch.randn(3, 3, 8, 8, dtype=torch.double), []
    for m in (model, fused):
        weight = m[1].weight
        del m[1].weight
        m[1].weight = 2 * weight
        gradients.append(torch.autograd.grad(m(x).sin().sum(), weight))
    torch.testing.assert_close(*gradients)
    assert calls == ["batch_norm_train", "batch_norm_train_backward"]


def test_changed_between_forward_and_backward():
    model, fused = pair(NETWORKS["chain"])
    x, gradients = torch.randn(3, 3, 8, 8, dtype=torch.double), []
    for m in (model, fused):
        y = m(x).sin().sum()
        with torch.no_grad():
            m[1].bias.add_(1)  # which nothing keeps
        gradients.append(torch.autograd.grad(y, m.parameters(), retain_graph=True))
        with torch.no_grad():
            m[1].weight.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()
    torch.testing.assert_close(*gradients)


def test_what_torch_refuses_is_refused():
    x = torch.randn(3, 3, 8, 8, dtype=torch.double)

    def refuse(change):
        kinds = []
        for m in pair(NETWORKS["chain"]):
            change(m[1])
            with pytest.raises((RuntimeError, ValueError)) as caught:
                m(x)
            kinds.append((caught.type, str(caught.value)))
        assert kinds[0] == kinds[1]

    refuse(lambda norm: setattr(norm, "eps", 0.0))
    refuse(lambda norm: setattr(norm, "running_var", None))
    refuse(lambda norm: norm.running_mean.requires_grad_())


def test_compiled_autograd():
    model, fused = pair(NETWORKS["chain"])
    x = torch.randn(3, 3, 8, 8, dtype=torch.double)
    with torch._dynamo.config.patch(compiled_autograd=True):
        for m in (model, fused):
            torch.compile(lambda loss: loss.backward(), backend="eager")(m(x).sin().sum())
    torch.testing.assert_close(*([p.grad for p in m.parameters()] for m in (model, fused)))


def test_checkpointed(calls):
    model, fused = pair(NETWORKS["chain"])
    x = torch.randn(3, 3, 8, 8, dtype=torch.double, requires_grad=True)
    expected = torch.autograd.grad(model(x).sin().sum(), x)
    made = torch.autograd.grad(checkpoint(fused, x, use_reentrant=False).sin().sum(), x)
    torch.testing.assert_close(made, expected)
    assert calls.count("batch_norm_train") == 2
