"""conv2d_block is conv2d, an activation and max pooling: the same bits, and gradients equal to the order of sums."""

import pytest
import torch

import convlab.functional as CF


def three_layers(x, w, b=None, *geometry, activation=None, negative_slope=0.01, pool=None, algo="auto"):
    """What conv2d_block promises to be"""
    y = CF.conv2d(x, w, b, *geometry, algo=algo)
    if activation == "relu":
        y = CF.relu(y)
    elif activation:
        y = CF.leaky_relu(y, negative_slope)
    return y if pool is None else CF.max_pool2d(y, pool)


ENDS = [
    {"activation": activation, "negative_slope": slope, "pool": pool}
    for activation, slope in ((None, 0.01), ("relu", 0.01), ("leaky_relu", 0.1), ("leaky_relu", -1.5))
    for pool in (None, 2, (3, 2))
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: "-".join(map(str, end.values())))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bits_are_those_of_the_layers(end, layout):
    x = torch.randn(2, 6, 13, 11).contiguous(memory_format=layout)
    w, b = torch.randn(10, 3, 3, 3), torch.randn(10)
    y, expected = (f(x, w, b, 1, 1, 1, 2, **end) for f in (CF.conv2d_block, three_layers))
    assert y.stride() == expected.stride()
    assert torch.equal(y, expected)


def test_errors_name_the_argument():
    x, w = torch.randn(1, 2, 8, 8), torch.randn(3, 2, 3, 3)
    with pytest.raises(ValueError, match=r"activation='gelu' must be None, 'relu' or 'leaky_relu'"):
        CF.conv2d_block(x, w, activation="gelu")
    with pytest.raises(RuntimeError, match=r"pool=0 must be None, or a window of at least 1 x 1"):
        CF.conv2d_block(x, w, pool=0)
    with pytest.raises(TypeError, match=r"pool must be an int or a tuple of ints, got 'max'"):
        CF.conv2d_block(x, w, pool="max")
    with pytest.raises(TypeError, match=r"negative_slope must be a number, got 'a'"):
        CF.conv2d_block(x, w, activation="leaky_relu", negative_slope="a")
    with pytest.raises(RuntimeError, match=r"the window covers 7"):
        CF.conv2d_block(x, w, pool=7)


def gradients(function, tensors, end):
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
    y = function(*leaves, 1, 1, 1, 2, **end)
    torch.manual_seed(3)
    return torch.autograd.grad(y, leaves, torch.randn(y.shape, dtype=y.dtype))


@pytest.mark.parametrize("end", ENDS, ids=lambda end: "-".join(map(str, end.values())))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients(end, layout):
    x = torch.randn(2, 6, 13, 11, dtype=torch.float64).contiguous(memory_format=layout)
    w, b = torch.randn(10, 3, 3, 3, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
    for ours, theirs in zip(gradients(CF.conv2d_block, (x, w, b), end), gradients(three_layers, (x, w, b), end)):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("end", ENDS, ids=lambda end: "-".join(map(str, end.values())))
def test_gradcheck_of_two_orders(end):
    x, w, b = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((1, 2, 6, 5), (2, 1, 2, 2), (2,)))

    def block(x, w, b):
        return CF.conv2d_block(x, w, b, 1, 1, 1, 2, **end)

    assert torch.autograd.gradcheck(block, (x, w, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(block, (x, w, b))
