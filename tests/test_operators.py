"""Every raw operator honours its schema, and its fake makes the tensor that the real one makes."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.library import opcheck
from torch.utils._pytree import tree_map_only

import convlab
from convlab import ops
from convlab.simulator import launches_of


def _layout(t, channels_last):
    return t.contiguous(memory_format=torch.channels_last) if channels_last else t


def samples(device, channels_last=False, dtype=torch.float32):
    """(operator, arguments) for every operator, several each."""
    x, w = torch.randn(2, 6, 9, 8, device=device, dtype=dtype), torch.randn(9, 2, 3, 2, device=device, dtype=dtype)
    x, w, b = _layout(x, channels_last), _layout(w, channels_last), torch.randn(9, device=device, dtype=dtype)
    conv = [2, 1, 1, 0, 2, 1, 1, 2, 3]
    y = ops.conv2d_forward(x, w, b, conv, 0)
    dy = torch.randn_like(y)
    yield ops.conv2d_forward, (x, w, b, conv, 0)
    yield ops.conv2d_forward, (x, w, None, conv, 2)
    yield ops.conv2d_forward, (x[:0], w, b, conv, 0)
    yield ops.conv2d_forward, (x[:, :, ::2], w, b, conv, 0)
    yield ops.conv2d_dgrad, (dy, w, [9, 8], conv, channels_last, 0)
    yield ops.conv2d_wgrad, (dy, x, [3, 2], conv, True, channels_last, 0)
    yield ops.conv2d_wgrad, (dy, x, [3, 2], conv, False, not channels_last, 2)
    yield ops.conv2d_backward, (dy, x, w, conv, True, 0, 2)
    yield ops.conv2d_backward, (dy, x[..., :7], w[:, :, :1, :1], [2, 1, 0, 0, 0, 0, 1, 1, 3], False, 2, 0)
    yield ops.conv2d_bias_grad, (dy,)
    for ending, bias in (((1, 2, 1), b), ((2, 1, 1), None), ((0, 2, 2), b), ((3, 2, 2), None)):
        y, winners = ops.conv2d_block_forward(x, w, bias, conv, ending, 0.1, True, 0)
        yield ops.conv2d_block_forward, (x, w, bias, conv, ending, 0.1, True, 0)
        yield ops.conv2d_block_forward, (x, w, bias, conv, ending, 0.1, False, 0)
        sizes = ([9, 8], [3, 2], conv, ending, 0.1, bias is not None, channels_last, channels_last, [0, 0])
        for of_w, of_x in ((x, w), (x, None), (None, w)):
            yield ops.conv2d_block_backward, (torch.randn_like(y), winners, of_w, of_x, *sizes)
    for window in [[2, 2, 2, 2, 0, 0, 1, 1], [3, 2, 2, 1, 1, 1, 1, 2]]:
        for ceil_mode in (False, True):
            y, offsets = ops.max_pool2d_forward(x, window, ceil_mode, True)
            yield ops.max_pool2d_forward, (x, window, ceil_mode, True)
            yield ops.max_pool2d_forward, (x, window, ceil_mode, False)
            yield ops.max_pool2d_backward, (torch.randn_like(y), offsets, [9, 8], window, channels_last)
            yield ops.max_pool2d_gather, (x, offsets, window)
            yield ops.max_pool2d_indices, (offsets, [9, 8], window)
    for window in [[2, 2, 2, 2, 0, 0, 1, 1], [3, 2, 2, 1, 1, 1, 1, 1]]:
        for ceil_mode, count_include_pad, divisor in [(False, True, 0), (True, False, 0), (True, True, 5)]:
            y = ops.avg_pool2d_forward(x, window, ceil_mode, count_include_pad, divisor)
            yield ops.avg_pool2d_forward, (x, window, ceil_mode, count_include_pad, divisor)
            yield (
                ops.avg_pool2d_backward,
                (torch.randn_like(y), [9, 8], window, count_include_pad, divisor, channels_last),
            )
    y, indices = ops.adaptive_max_pool2d_forward(x, [4, 3])
    yield ops.adaptive_max_pool2d_forward, (x, [4, 3])
    yield ops.adaptive_max_pool2d_backward, (torch.randn_like(y), indices, [9, 8], channels_last)
    yield ops.adaptive_avg_pool2d_forward, (x, [4, 10])
    yield ops.adaptive_avg_pool2d_backward, (torch.randn_like(y), [9, 8], channels_last)
    yield ops.max_unpool2d_forward, (y, indices, [9, 8], channels_last)
    yield ops.planes_gather, (x, indices, channels_last)
    for t in (x, x[:, ::2], x.transpose(1, 3), x.new_empty(0, 3)):
        yield ops.leaky_relu_forward, (t, 0.1, False)
        yield ops.leaky_relu_forward, (t, 0.1, True)
        yield ops.leaky_relu_forward, (t, 0.1, True, True)
        yield ops.leaky_relu_backward, (torch.randn_like(t), t > 0, 0.1)
        bits = ops.leaky_relu_forward(t, 0.1, True, True)[1]  # on CUDA
        yield ops.leaky_relu_backward, (torch.randn_like(t), bits, 0.1, not t.is_contiguous())
        yield ops.leaky_relu_, (t.clone(), 0.1, False)
        yield ops.leaky_relu_, (t.clone(), 0.1, True)
        yield ops.leaky_relu_, (t.clone(), 0.1, True, True)
        yield ops.relu_forward, (t,)
        yield ops.relu_, (t.clone(),)
        yield ops.relu_backward, (torch.randn_like(t), t)
        yield ops.relu6_forward, (t,)
        yield ops.relu6_, (t.clone(),)
        yield ops.relu6_backward, (torch.randn_like(t), t)
        for slopes in (t.new_full((1,), 0.25), t.new_ones(t.shape[1])):
            yield ops.prelu_scale, (torch.randn_like(t), t, slopes, True)
            yield ops.prelu_wgrad, (torch.randn_like(t), torch.randn_like(t), t, len(slopes))
    if device == "cpu":
        mean, var, gamma, beta = torch.rand(4, 9, dtype=dtype)
        for t in (x, x[:, ::2], x.transpose(2, 3)):
            of = [statistic[: t.shape[1]] for statistic in (mean, var, gamma, beta)]
            yield ops.batch_norm_forward, (t, *of, 0.1, 3, 0.1)
            yield ops.batch_norm_forward, (t, *of[:2], None, None, 0.1, 0, 0.1)
            yield ops.batch_norm_, (t.clone(), *of, 0.1, 2, 0.1)
            yield ops.batch_norm_joined, ([t[:, :1], t[:, 1:]], *of, 0.1, 1, 0.1)
            if dtype in (torch.float32, torch.float64):
                for gamma_beta in (of[2:], (None, None)):
                    running = of[0].clone(), of[1].clone()
                    yield ops.batch_norm_train, (t, *gamma_beta, *running, 0.1, 0.1, 3, 0.1)
                    _, terms = ops.batch_norm_train(t, *gamma_beta, None, None, 0.1, 0.1, 3, 0.1)
                    yield ops.batch_norm_train_backward, (torch.randn_like(t), t, terms, 3, 0.1)
            yield ops.add_activated_, (t.clone(), torch.randn_like(t), 2, 0.1)
        yield ops.batch_norm_folded, (w, b, mean, var, gamma, beta, 0.1)
        yield ops.batch_norm_folded, (w[:, ::2], None, mean, var, None, None, 0.1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_samples_cover_every_operator(channels_last):
    assert {op for op, _ in samples("cpu", channels_last)} == set(ops.ALL)


@pytest.mark.parametrize("channels_last", [False, pytest.param(True, marks=pytest.mark.long)])
def test_opcheck(channels_last, device):
    for op, arguments in samples(device, channels_last):
        opcheck(
            op,
            arguments,
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_fakes_are_like_the_real_thing(channels_last, dtype, device):
    for op, arguments in samples(device, channels_last, dtype):
        real = op(*arguments)
        with FakeTensorMode() as mode:
            fake = op(*tree_map_only(torch.Tensor, mode.from_tensor, arguments))
        for r, f in zip(*((t,) if isinstance(t, torch.Tensor) else t or () for t in (real, fake))):
            assert (r.shape, r.stride(), r.dtype, r.device) == (f.shape, f.stride(), f.dtype, f.device), (
                f"{op} {arguments}"
            )


def test_meta_tensors():
    x, w = torch.randn(2, 3, 9, 8, device="meta"), torch.randn(4, 3, 3, 3, device="meta")
    assert ops.conv2d_forward(x, w, None, [1, 1, 0, 0, 0, 0, 1, 1, 1], 0).shape == (2, 4, 7, 6)


def test_winners_out_of_range_read_nothing():
    """Offsets are the caller's data: nonsense in them must not reach outside a plane."""
    x, dy = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 2, 2)
    window = [2, 2, 2, 2, 1, 1, 1, 1]
    dy = torch.randn(1, 1, 3, 3)
    for nonsense in (0, 200, 255):
        offsets = torch.full((1, 1, 3, 3), nonsense, dtype=torch.uint8)
        assert ops.max_pool2d_gather(x, offsets, window).isfinite().all()
        assert ops.max_pool2d_backward(dy, offsets, [4, 4], window, False).isfinite().all()
        with convlab.simulate(check=True):
            assert ops.max_pool2d_gather(x, offsets, window).isfinite().all()
            assert ops.max_pool2d_backward(dy, offsets, [4, 4], window, False).isfinite().all()


@pytest.mark.parametrize("winner", [4, 127, 128 + 4, 255])
def test_winners_of_no_element_pass_no_gradient(winner):
    """Those of a block are the caller's data, too."""
    conv, ending = [1, 1, 0, 0, 0, 0, 1, 1, 1], (1, 2, 2)
    x, w, dy = torch.randn(1, 1, 7, 7), torch.ones(1, 1, 1, 1), torch.ones(1, 1, 3, 3)
    winners = torch.full((1, 1, 3, 3), winner, dtype=torch.uint8)
    arguments = (dy, winners, x, w, [7, 7], [1, 1], conv, ending, 0.1, True, False, False, [0, 0])
    assert not any(t.any() for t in ops.conv2d_block_backward(*arguments))
    with convlab.simulate(check=True):
        assert not any(t.any() for t in ops.conv2d_block_backward(*arguments))


def test_adaptive_windows_of_nothing():
    """Of an input without an element there is no maximum; an output without one has no gradient."""
    for op in (ops.adaptive_avg_pool2d_forward, ops.adaptive_max_pool2d_forward):
        with pytest.raises(RuntimeError, match=r"input \[1, 2, 0, 4\] may be empty in the batch and channel"):
            op(torch.zeros(1, 2, 0, 4), [2, 2])
        y = op(torch.zeros(0, 2, 0, 4), [2, 2])
        assert (y if isinstance(y, torch.Tensor) else y[0]).shape == (0, 2, 2, 2)
    dy, indices = torch.zeros(1, 2, 0, 3), torch.zeros(1, 2, 0, 3, dtype=torch.long)
    for check in (False, True):
        with convlab.simulate(check=check):
            assert not ops.adaptive_avg_pool2d_backward(dy, [4, 5], False).any()
            assert not ops.adaptive_max_pool2d_backward(dy, indices, [4, 5], False).any()
            assert not ops.max_unpool2d_forward(dy, indices, [4, 5], False).any()


def test_more_channels_than_a_grid_has_rows():
    x, channels = torch.tensor([[-1.0, 2.0]]).repeat(2, 35_000), 70_000
    slices, _ = launches_of(lambda: ops.prelu_wgrad(x, x, x, channels))
    assert slices.grid == (channels, 1, 1)
