"""CUDA in channels_last: depthwise and small_filter read and write tensors as they lie, other rungs through convlab's
layout kernels, and nothing through torch's copies."""

import random

import pytest
import torch
from ladder import WITH_FLOAT32, anywhere, check_passes, dtypes_of, last, passes_of, plain, random_problem, typical
from test_bytes_moved import least, names_of

import convlab
from convlab import ops
from convlab.testing import Conv

DEPTHWISE = next(a for a in convlab.algorithms() if a.name == "depthwise")
CONVS = [
    Conv(2, 8, 9, 10, 8, 3, 3, padding=(1, 1), groups=8),  # vectors, and a row beyond two runs
    Conv(1, 36, 8, 7, 36, 3, 3, padding=(1, 1), groups=36),  # channels beyond a block's
    Conv(3, 33, 5, 6, 33, 3, 3, padding=(1, 1), groups=33),  # no vectors
    Conv(2, 12, 13, 12, 12, 3, 3, stride=(2, 2), padding=(1, 1), groups=12),
    Conv(2, 6, 9, 12, 6, 5, 5, padding=(2, 2), groups=6),
    Conv(1, 34, 12, 13, 34, 5, 5, stride=(2, 2), padding=(2, 2), groups=34),
    Conv(2, 4, 8, 10, 4, 3, 3, padding=(3, 3), groups=4),  # outputs that see nothing but padding
    Conv(1, 4, 40, 38, 4, 3, 3, groups=4),  # several rounds of a block
    Conv(41, 4, 7, 7, 4, 3, 3, padding=(1, 1), groups=4),  # several images a block
    Conv(2, 4, 6, 7, 12, 3, 3, padding=(1, 1), groups=4),  # a multiplier
    Conv(2, 4, 11, 12, 4, 3, 3, stride=(3, 2), padding=(1, 1), groups=4),
    Conv(2, 4, 11, 12, 4, 3, 3, padding=(2, 2), dilation=(2, 2), groups=4),
    Conv(2, 4, 9, 10, 4, 7, 2, padding=(3, 3), groups=4),
    Conv(2, 4, 1, 10, 4, 3, 3, padding=(1, 1), groups=4),  # one row
    Conv(2, 1, 6, 5, 1, 3, 3, groups=1),  # both layouts in one
    Conv(2, 1, 6, 5, 4, 3, 3, groups=1),  # of x alone
    Conv(2, 4, 3, 3, 4, 3, 3, groups=4),  # of y alone
]


def outputs_of(conv: Conv, pass_: str, number: int, x, w, b, dy) -> list[torch.Tensor]:
    geometry = (*conv.stride, *conv.padding * 2, *conv.dilation, conv.groups)
    if pass_ == "forward":
        return [ops.conv2d_forward(x, w, b, geometry, number)]
    if pass_ == "dgrad":
        return [ops.conv2d_dgrad(dy, w, x.shape[2:], geometry, True, number)]
    return list(ops.conv2d_wgrad(dy, x, w.shape[2:], geometry, True, True, number))


def check(rung, conv, dtype=torch.float32, lay_x=last, lay_dy=last, **mode) -> None:
    check_passes(rung, conv, dtype, passes_of(rung, conv, dtype), "cpu", lay_x, lay_dy, **mode)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_depthwise(conv, dtype):
    check(DEPTHWISE, conv, dtype, check=dtype is not torch.float16, order="random")


@pytest.mark.parametrize("lay_x,lay_dy", [(plain, last), (last, plain), (anywhere, anywhere)])
@pytest.mark.parametrize("conv", [CONVS[0], CONVS[4], CONVS[9], CONVS[-2]], ids=str)
def test_depthwise_in_mixed_layouts_and_anywhere(conv, lay_x, lay_dy):
    check(DEPTHWISE, conv, torch.float32, lay_x, lay_dy, check=False)


@pytest.mark.parametrize("conv", [CONVS[0]._replace(N=9), CONVS[2], CONVS[5]], ids=str)
def test_depthwise_has_the_same_bits_in_every_order(conv):
    x, w, b = conv.tensors(torch.float32)
    x, dy, made = last(x), last(torch.randn(conv.N, conv.K, *conv.outputs)), []
    for order in ("forward", "reverse", "random"):
        with convlab.simulate(check=False, order=order):
            made.append([t for p in ("forward", "dgrad", "wgrad") for t in outputs_of(conv, p, 8, x, w, b, dy)])
    assert all(torch.equal(a, b) for other in made[1:] for a, b in zip(made[0], other))


SMALL_FILTER = next(a for a in convlab.algorithms() if a.name == "small_filter")
SMALL_FILTERS = [
    Conv(3, 1, 12, 11, 6, 5, 5, padding=(1, 2)),  # six maps a thread, and an odd width
    Conv(2, 6, 9, 12, 16, 5, 5, padding=(2, 1)),
    Conv(9, 3, 6, 5, 32, 3, 3, padding=(0, 2)),  # several images a block
    Conv(2, 1, 17, 16, 4, 7, 7),
    Conv(2, 4, 13, 14, 16, 7, 7, padding=(3, 3)),
]


@pytest.mark.parametrize("lay_x,lay_dy", [(last, last), (plain, last), (anywhere, anywhere)])
@pytest.mark.parametrize("conv", SMALL_FILTERS, ids=str)
def test_small_filter(conv, lay_x, lay_dy):
    check(SMALL_FILTER, conv, torch.float32, lay_x, lay_dy, check=lay_x is last, order="random")


@pytest.mark.parametrize("dtype,lay", [(torch.float16, last), (torch.bfloat16, plain)])
@pytest.mark.parametrize("conv", SMALL_FILTERS, ids=str)
def test_small_filter_of_16_bits(conv, dtype, lay):
    assert passes_of(SMALL_FILTER, conv, dtype) == ["dgrad", "forward"]
    check(SMALL_FILTER, conv, dtype, lay, lay, check=False)


@pytest.mark.parametrize("conv", SMALL_FILTERS, ids=str)
def test_small_filter_takes_tensors_as_they_lie(conv):
    """A forward is one launch and no copy, and so is a wgrad that has its maps in vectors, but for adding up slices."""
    x, w, b = conv.tensors(torch.float32)
    tensors = last(x), last(w), b, last(torch.randn(conv.N, conv.K, *conv.outputs))
    with convlab.simulate(check=False) as sim:
        outputs_of(conv, "forward", SMALL_FILTER.number, *tensors)
    assert len(sim.launches) == 1, sim.launches
    if conv.K >= 16 and conv.R < 7:
        with convlab.simulate(check=False) as sim:
            outputs_of(conv, "wgrad", SMALL_FILTER.number, *tensors)
        assert {launch.kernel.split("<")[0] for launch in sim.launches} <= {
            "small_filter_wgrad_kernel",
            "add_slices_kernel",
        }, sim.launches


def run_random(seed: int, count: int) -> None:
    rng = random.Random(seed)
    for i in range(count):
        conv, dtype = random_problem(rng, DEPTHWISE)
        lay_x, lay_dy = rng.choice([last, last, plain, anywhere]), rng.choice([last, last, plain, anywhere])
        mode = dict(order=("random", "forward", "reverse")[i % 3], seed=i, check=i % 8 == 0)
        check(DEPTHWISE, conv, dtype, lay_x, lay_dy, **mode)


def test_random_problems():
    run_random(0, 8)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_random_problems(seed):
    run_random(seed, 200)


@pytest.mark.parametrize("rung", WITH_FLOAT32, ids=lambda a: a.name)
def test_convolutions_without_torchs_copies(rung):
    conv = typical(rung)._replace(H=14, W=14)
    assert passes_of(rung, conv)
    check(rung, conv, dtypes_of(rung)[-1], check=False)
    x, w, b = (last(t) if t.dim() == 4 else t for t in conv.tensors(torch.float32))
    dy = last(torch.randn(conv.N, conv.K, *conv.outputs))
    for pass_ in passes_of(rung, conv):
        with convlab.simulate(check=False):
            names = names_of(lambda: outputs_of(conv, pass_, rung.number, x, w, b, dy))
        assert any("conv2d" in name for name in names)
        assert not {"aten::copy_", "aten::contiguous", "aten::clone"} & set(names), (pass_, names)


LAYOUT_KERNELS = "change_layout_kernel", "transpose_kernel"
SIZES = [(2, 3, 5, 7), (1, 33, 8, 8), (3, 6, 28, 28), (2, 64, 7, 7), (1, 40, 1, 13), (70, 5, 2, 3), (1, 2, 45, 47)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_there_and_back(shape, dtype):
    """Pooling over windows of one element gives the input, by kernels that take NCHW alone."""
    x = last(torch.randn(shape).to(dtype))
    with convlab.simulate(order="random") as sim:
        names = names_of(lambda: ops.adaptive_avg_pool2d_forward(x, list(shape[2:])))
        y = ops.adaptive_avg_pool2d_forward(x, list(shape[2:]))
    assert torch.equal(y, x) and y.is_contiguous(memory_format=torch.channels_last)
    assert sum(launch.kernel.startswith(LAYOUT_KERNELS) for launch in sim.launches) >= 2
    assert not {"aten::copy_", "aten::contiguous", "aten::clone"} & set(names), names


@pytest.mark.parametrize("shape", SIZES[:4], ids=str)
def test_of_bytes(shape):
    x = torch.randn(shape)
    dx = {}
    window = [2, 2, 1, 1, 0, 0, 1, 1]
    with convlab.simulate() as sim:
        y, offsets = ops.max_pool2d_forward(x, window, False, True)
        dy = torch.randn_like(y)
        for to in (False, True):
            dx[to] = ops.max_pool2d_backward(last(dy) if to else dy, offsets, shape[2:], window, to)
    assert torch.equal(dx[True], dx[False])
    assert any("change_layout_kernel<unsigned char" in launch.kernel for launch in sim.launches), sim.launches


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 64, 16, 16), (3, 16, 8, 8), (1, 8, 32, 64)], ids=str)
def test_layout_kernels_ask_for_the_least(shape, dtype):
    x = last(torch.randn(shape).to(dtype))
    with convlab.simulate(check=False, count=True) as sim:
        ops.adaptive_avg_pool2d_forward(x, list(shape[2:]))
    rows = [row for row in sim.traffic if row.kernel.startswith(LAYOUT_KERNELS)]
    shared = [row for row in rows if row.space == "shared"]
    assert sum(row.wavefronts for row in shared) == sum(row.ideal for row in shared) > 0
    assert sum(row.sectors for row in rows if row.space != "shared") == least(x, x, x, x)
