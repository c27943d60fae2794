"""What torch refuses, convlab refuses with the same class of error, and says which argument and which values."""

import pytest
import torch
import torch.nn.functional as F

import convlab.functional as CF
from convlab import ops


def _t(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


# what is wrong: arguments of conv2d, and words that the message must have
CONV2D = {
    "two dimensions": ((_t(3, 8), _t(4, 3, 3, 3)), "(3, 8)"),
    "five dimensions": ((_t(1, 2, 3, 8, 8), _t(4, 3, 3, 3)), "(1, 2, 3, 8, 8)"),
    "weight of three dimensions": ((_t(2, 3, 8, 8), _t(3, 3, 3)), "(3, 3, 3)"),
    "channels": ((_t(2, 3, 8, 8), _t(4, 2, 3, 3)), "3 channels"),
    "input channels and groups": ((_t(2, 5, 8, 8), _t(4, 2, 3, 3), None, 1, 0, 1, 2), "groups=2"),
    "output channels and groups": ((_t(2, 4, 8, 8), _t(3, 2, 3, 3), None, 1, 0, 1, 2), "groups=2"),
    "zero groups": ((_t(2, 4, 8, 8), _t(3, 2, 3, 3), None, 1, 0, 1, 0), "groups=0"),
    "negative groups": ((_t(2, 4, 8, 8), _t(3, 2, 3, 3), None, 1, 0, 1, -1), "groups=-1"),
    "bias length": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), _t(3)), "bias"),
    "bias dimensions": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), _t(4, 1)), "bias"),
    "weight dtype": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3, dtype=torch.float64)), "weight is float64"),
    "bias dtype": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), _t(4, dtype=torch.float16)), "bias is float16"),
    "kernel larger than input": ((_t(2, 3, 4, 8), _t(4, 3, 5, 3)), "padded input's 4"),
    "kernel larger than padded input": ((_t(2, 3, 4, 8), _t(4, 3, 7, 3), None, 1, 1), "padded input's 6"),
    "dilated kernel larger than input": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 1, 0, 4), "covers 9"),
    "negative padding": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 1, -1), "padding"),
    "zero stride": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 0), "stride"),
    "negative stride": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, (1, -1)), "stride"),
    "zero dilation": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 1, 0, 0), "dilation"),
    "three strides": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, (1, 1, 1)), "stride"),
    "no strides": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, ()), "stride"),
    "fractional stride": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 1.5), "stride"),
    "stride of a string": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, "1"), "stride"),
    "fractional padding": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 1, (1, 0.5)), "padding"),
    "unknown padding": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 1, "full"), "full"),
    "same padding with a stride": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 2, "same"), "same"),
    "fractional groups": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 1, 0, 1, 1.5), "groups"),
    "input no tensor": (([[1.0]], _t(4, 3, 3, 3)), "input"),
    "weight no tensor": ((_t(2, 3, 8, 8), None), "weight"),
    "bias no tensor": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), 1.0), "bias"),
    "absurd dilation": ((_t(2, 3, 8, 8), _t(4, 3, 3, 3), None, 1, 0, 2**31 - 1), "dilation"),
}

# of max_pool2d
MAX_POOL2D = {
    "two dimensions": ((_t(8, 8), 2), "(8, 8)"),
    "five dimensions": ((_t(1, 1, 1, 8, 8), 2), "(1, 1, 1, 8, 8)"),
    "zero kernel": ((_t(1, 1, 8, 8), 0), "kernel_size"),
    "zero stride": ((_t(1, 1, 8, 8), 2, 0), "stride"),
    "zero dilation": ((_t(1, 1, 8, 8), 2, 2, 0, 0), "dilation"),
    "negative padding": ((_t(1, 1, 8, 8), 2, 2, -1), "padding"),
    "padding beyond half": ((_t(1, 1, 8, 8), 3, 2, 2), "padding"),
    "window too large": ((_t(1, 1, 4, 4), 5), "padded input's 4"),
    "three kernel sizes": ((_t(1, 1, 8, 8), (2, 2, 2)), "kernel_size"),
    "fractional kernel": ((_t(1, 1, 8, 8), 2.5), "kernel_size"),
    "no channels": ((_t(1, 0, 8, 8), 2), "batch"),
    "input no tensor": (([1.0], 2), "input"),
}


def refusal(f, arguments):
    with pytest.raises(Exception) as caught:
        f(*arguments)
    return caught.value


@pytest.mark.parametrize("what", CONV2D)
def test_conv2d(what):
    arguments, words = CONV2D[what]
    ours, torchs = refusal(CF.conv2d, arguments), refusal(F.conv2d, arguments)
    assert type(ours) is type(torchs), f"{ours!r} where torch raises {torchs!r}"
    assert words in str(ours)
    assert "\n" not in str(ours)


@pytest.mark.parametrize("what", MAX_POOL2D)
def test_max_pool2d(what):
    arguments, words = MAX_POOL2D[what]
    ours, torchs = refusal(CF.max_pool2d, arguments), refusal(F.max_pool2d, arguments)
    assert type(ours) is type(torchs), f"{ours!r} where torch raises {torchs!r}"
    assert words in str(ours)
    assert "\n" not in str(ours)


@pytest.mark.parametrize("f", [lambda x: CF.conv2d(x, x), lambda x: CF.max_pool2d(x, 1), CF.relu, CF.leaky_relu])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool], ids=str)
def test_dtypes_that_no_kernel_has(f, dtype):
    error = refusal(f, (torch.zeros(1, 1, 1, 1, dtype=dtype),))
    assert type(error) is NotImplementedError and "float32" in str(error)


def test_gradients_of_the_wrong_shape_are_refused():
    x, w, dy = _t(2, 3, 8, 8), _t(4, 3, 3, 3), _t(2, 4, 6, 5)
    conv = [1, 1, 0, 0, 0, 0, 1, 1, 1]
    for op, arguments in [
        (ops.conv2d_dgrad, (dy, w, [8, 8], conv, False, 0)),
        (ops.conv2d_wgrad, (dy, x, [3, 3], conv, True, False, 0)),
        (ops.conv2d_backward, (dy, x, w, conv, True, 0, 0)),
    ]:
        with pytest.raises(RuntimeError, match=r"grad_output is \[2, 4, 6, 5\], expected \[2, 4, 6, 6\]"):
            op(*arguments)
    with pytest.raises(RuntimeError, match="grad_output"):
        ops.relu_backward(_t(3), _t(4))
    offsets = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    window = [2, 2, 2, 2, 0, 0, 1, 1]
    with pytest.raises(RuntimeError, match="grad_output"):
        ops.max_pool2d_backward(_t(2, 3, 5, 4), offsets, [8, 8], window, False)
    with pytest.raises(RuntimeError, match="offsets is int64, expected uint8"):
        ops.max_pool2d_backward(_t(2, 3, 4, 4), offsets.long(), [8, 8], window, False)
    with pytest.raises(RuntimeError, match="offsets"):
        ops.max_pool2d_gather(x, offsets[:, :2], window)
    with pytest.raises(RuntimeError, match=r"dilation=\[2, 1\] must be 1"):
        ops.avg_pool2d_forward(x, [2, 2, 2, 2, 0, 0, 2, 1], False, True, 0)
    with pytest.raises(RuntimeError, match="dilation"):
        ops.avg_pool2d_backward(_t(2, 3, 2, 2), [6, 6], [2, 2, 2, 2, 0, 0, 2, 2], True, 0, False)
    with pytest.raises(RuntimeError, match="window has 9 values, expected 8"):
        ops.avg_pool2d_forward(x, [*window, 1], False, True, 0)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8, 1), (3,), ()])
def test_raw_operators_refuse_wrong_dimensions(shape):
    t = _t(*shape)
    conv, window = [1, 1, 0, 0, 0, 0, 1, 1, 1], [2, 2, 2, 2, 0, 0, 1, 1]
    for op, arguments in [
        (ops.conv2d_forward, (t, t, None, conv, 0)),
        (ops.conv2d_dgrad, (t, t, [8, 8], conv, False, 0)),
        (ops.conv2d_wgrad, (t, t, [3, 3], conv, True, False, 0)),
        (ops.conv2d_backward, (t, t, t, conv, True, 0, 0)),
        (ops.conv2d_bias_grad, (t,)),
        (ops.max_pool2d_forward, (t, window, False, True)),
        (ops.max_pool2d_backward, (t, t, [8, 8], window, False)),
        (ops.max_pool2d_gather, (t, t, window)),
        (ops.max_pool2d_indices, (t, [8, 8], window)),
        (ops.adaptive_avg_pool2d_forward, (t, [2, 2])),
        (ops.adaptive_avg_pool2d_backward, (t, [9, 9], False)),
        (ops.adaptive_max_pool2d_forward, (t, [2, 2])),
        (ops.adaptive_max_pool2d_backward, (t, t.long(), [9, 9], False)),
        (ops.max_unpool2d_forward, (t, t.long(), [9, 9], False)),
        (ops.planes_gather, (t, t.long(), False)),
        (ops.conv2d_block_forward, (t, t, None, conv, [1, 2, 2], 0.1, True, 0)),
        (
            ops.conv2d_block_backward,
            (t, t.byte(), t, t, [8, 8], [3, 3], conv, [1, 2, 2], 0.1, True, False, False, [0, 0]),
        ),
    ]:
        with pytest.raises(RuntimeError):
            op(*arguments)


@pytest.mark.cuda
def test_tensors_on_two_devices():
    x, w = _t(2, 3, 8, 8), _t(4, 3, 3, 3)
    for f in (F.conv2d, CF.conv2d):
        for arguments in [(x.cuda(), w), (x, w.cuda()), (x.cuda(), w.cuda(), _t(4))]:
            assert type(refusal(f, arguments)) is RuntimeError
