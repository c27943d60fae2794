"""The end of a residual block, activation(y + residual), is one pass where nobody sees what is between."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convlab
from convlab import ops

ACTIVATIONS = (lambda t: t, F.relu, lambda t: F.leaky_relu(t, -0.3), F.relu6)


def layouts(t):
    yield t
    yield t.contiguous(memory_format=torch.channels_last)
    yield t.transpose(2, 3).contiguous().transpose(2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("number", range(4))
def test_the_operator(number, dtype):
    for shape in ((2, 3, 5, 7), (1, 1, 1, 1), (2, 0, 3, 3), (3, 33, 9, 4)):
        x, t = torch.randn(2, *shape).mul(5).to(dtype)
        x.view(-1)[:3] = torch.tensor([float("nan"), -0.0, float("inf")])[: x.numel()]
        expected = ACTIVATIONS[number](x + t)
        for y in layouts(x):
            for residual in (*layouts(t), torch.cat([t, t], 1)[:, : shape[1]], t[:, :1].expand(shape)):
                over = y.clone()
                ops.add_activated_(over, residual, number, -0.3)
                wanted = expected if residual.stride()[1] else ACTIVATIONS[number](x + residual)
                torch.testing.assert_close(over, wanted, rtol=0, atol=0, equal_nan=True)
    apart = torch.randn(2, 3, 4, 9).to(dtype)
    kept, t = apart.clone(), torch.randn(2, 3, 4, 5).to(dtype)
    ops.add_activated_(apart[..., :5], t, number, -0.3)
    torch.testing.assert_close(apart[..., :5], ACTIVATIONS[number](kept[..., :5] + t), rtol=0, atol=0)
    torch.testing.assert_close(apart[..., 5:], kept[..., 5:], rtol=0, atol=0)  # what lies between stays


def test_wrong_arguments():
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(RuntimeError, match=r"residual is \[2, 3, 4, 1\], expected \[2, 3, 4, 4\]"):
        ops.add_activated_(x, x[..., :1], 0, 1.0)
    with pytest.raises(RuntimeError, match="residual is float64 but input is float32"):
        ops.add_activated_(x, x.double(), 0, 1.0)
    with pytest.raises(RuntimeError, match="activation number 4"):
        ops.add_activated_(x, x, 4, 1.0)


# ---- where fuse makes it of layers ----------------------------------------------------------------------------------


class Block(nn.Module):
    """A block whose `forward` is given, of the layers that most have."""

    def __init__(self, forward, channels=4):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.down, self.relu = nn.Conv2d(3, channels, 1), nn.ReLU(inplace=True)
        nn.init.normal_(self.norm.running_mean), nn.init.normal_(self.norm.bias)
        self.__class__ = type("Block", (Block,), {"forward": forward})


def in_place(self, x):  # as torchvision's have it
    out = self.norm(self.conv(x))
    identity = self.down(x)
    out += identity
    return self.relu(out)


def the_other_first(self, x):
    return F.leaky_relu(x + self.norm(self.conv(x)), 0.2)


def no_norm(self, x):
    return torch.add(x, self.conv(x))


def after_an_activation(self, x):
    return x + F.leaky_relu(self.norm(self.conv(x)), 0.1)


def used_twice(self, x):
    y = self.norm(self.conv(x))
    return F.relu(y + x) * y


def with_itself(self, x):
    y = self.conv(x)
    return y + y


def scaled(self, x):
    return torch.add(x, self.conv(x), alpha=2)


def broadcast(self, x):
    return F.relu(x[:, :1] + self.norm(self.conv(x)))


def written_to(self, x):  # "x" is what is written, not what the convolution made
    return x.mul(2).add_(self.conv(x)).relu_()


def a_number(self, x):
    return self.conv(x) + 1


def under_another_name(self, x):
    a = x * 1
    b = a
    b += 1
    b *= 2
    n = m = x.size(0)
    m += 1
    return self.conv(x) + a * n


def kept_in_a_list(self, x):
    kept, h = [], x * 1
    for _ in range(2):
        kept.append(h)
        h += self.conv(h)
    return torch.stack(kept)


def the_input(self, x):
    x += self.conv(x)
    return F.relu(x)


def method(self, x):
    return self.conv(x).add_(x)


@pytest.fixture
def passes(monkeypatch):
    """The numbers of the activations, pass by pass."""
    numbers, real = [], ops.add_activated_
    monkeypatch.setattr(ops, "add_activated_", lambda *args: (numbers.append(args[2]), real(*args))[1])
    return numbers


@pytest.mark.parametrize(
    "forward, expected",
    [
        *[(in_place, [1]), (the_other_first, [2]), (no_norm, [0]), (after_an_activation, [0]), (used_twice, [])],
        *[(with_itself, []), (scaled, []), (broadcast, []), (written_to, []), (a_number, [])],
        *[(under_another_name, [0]), (kept_in_a_list, []), (the_input, []), (method, [0])],
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_blocks(forward, expected, memory_format, passes):
    torch.manual_seed(0)
    model = Block(forward, 3).eval()
    x = torch.randn(2, 3, 6, 5).contiguous(memory_format=memory_format)
    with torch.no_grad():
        after = x.clone()
        wanted = model(after)
        assert_same(convlab.fuse(model)(x), wanted)
        assert_same(x, after)
    assert passes == expected


def assert_same(y, wanted):
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)  # also where float64 was added
    assert y.stride() == wanted.stride()


def other_of(change):
    """The sum with another tensor, that `change` makes of one like the convolution's output"""
    return lambda in_place: lambda self, x: change_and_add(self.norm(self.conv(x)), change(x), in_place)


def turned(t):
    return t.transpose(2, 3)


def change_and_add(y, other, in_place):
    if in_place:
        y += other
        return y
    return other + y


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        *[lambda t: t.double(), lambda t: t.bfloat16(), turned, lambda t: t[:1], lambda t: t[None]],
        *[lambda t: t.to_sparse(), lambda t: t.to("meta"), lambda t: t.to(torch.complex64), lambda t: t.new_ones(())],
    ],
)
def test_other_operands(change, in_place, passes):
    torch.manual_seed(0)
    model = Block(other_of(change)(in_place), 3).eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        try:
            wanted = model(x)
        except RuntimeError as error:
            with pytest.raises(RuntimeError) as raised:
                convlab.fuse(model)(x)
            assert str(raised.value) == str(error)
        else:
            assert_same(convlab.fuse(model)(x), wanted)
    assert passes == ([0] if in_place and change is turned else [])  # what is written to keeps its layout


def test_autocast_keeps_what_is_written_to():
    model, x = Block(method, 3).eval(), torch.randn(2, 3, 6, 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = model(x)
        y = convlab.fuse(model)(x)
    assert y.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(y, wanted)


def test_what_somebody_sees_stays(passes):
    torch.manual_seed(0)
    model, x = convlab.fuse(Block(in_place, 3).eval()), torch.randn(2, 3, 6, 5)
    with torch.no_grad():
        wanted = model(x)
        assert passes == [1]
        for layer in (model.conv, model.norm, model.relu):
            seen = []
            handle = layer.register_forward_hook(lambda _, inputs, output: seen.append((output, output.clone())))
            torch.testing.assert_close(model(x), wanted)
            handle.remove()
            ((output, then),) = seen
            if layer is model.conv:  # normalization makes a tensor of its own, and the activation writes over the sum
                torch.testing.assert_close(output, then, rtol=0, atol=0)
        torch.testing.assert_close(model(x), wanted)
    assert passes == [1, 1]
    torch.testing.assert_close(model(x), wanted)  # gradients are recorded
    assert passes == [1, 1]
    torch.testing.assert_close(torch.vmap(model)(x[None])[0], wanted)
    model.train()
    with torch.no_grad():
        model(x)
    assert passes == [1, 1]


def test_compiled(passes):
    model, x = convlab.fuse(Block(in_place, 3).eval()), torch.randn(2, 3, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="aot_eager")(x), model(x))
    assert passes == [1]  # eager; inductor makes one pass of sums and activations itself


def test_summary_and_restore():
    torch.manual_seed(0)
    model, x = Block(no_norm, 3).eval(), torch.randn(2, 3, 6, 5)
    with torch.no_grad():
        wanted = model(x)
        assert not convlab.summary(convlab.fuse(model), x).unfused
        torch.testing.assert_close(convlab.restore(model)(x), wanted)
