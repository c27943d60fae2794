"""Pooling and activations take both layouts as they lie, in one launch, and ask for hardly more sectors than there are."""

import pytest
import torch

import convlab
from convlab import ops

LAYOUTS = [torch.contiguous_format, torch.channels_last]
# shape, window, stride, padding, and how many times the least sectors: windows that overlap share through L1
POOLS = {
    "2x2/2": ((2, 32, 16, 32), 2, 2, 0, 1.08),
    "2x2/2 of odd sizes": ((2, 32, 15, 32), 2, 2, 0, 1.08),
    "3x3/2 padded": ((1, 32, 32, 64), 3, 2, 1, 2.0),
}


def counted(call, kernels=("",)) -> tuple[float, object]:
    """Of the one launch that `call` must be, but for kernels of other names: sectors that its requests move, and what it gives."""
    with convlab.simulate(check=False, count=True) as sim:
        result = call()
    launches = [launch for launch in sim.launches if launch.kernel.startswith(kernels)]
    assert len(launches) == 1, launches
    return sum(row.sectors for row in sim.traffic if row.kernel.startswith(kernels)), result


def least(*tensors) -> float:
    return sum(t.numel() * t.element_size() for t in tensors) / 32


def names_of(call) -> list[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return [event.name for event in profile.events()]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pool", POOLS)
def test_pooling(pool, dtype, layout):
    shape, size, stride, pad, most = POOLS[pool]
    window, x = (
        [size, size, stride, stride, pad, pad, 1, 1],
        torch.randn(shape).to(dtype).contiguous(memory_format=layout),
    )
    last = layout is torch.channels_last

    def max_forward():
        return ops.max_pool2d_forward(x, window, False, True)

    moved, (y, offsets) = counted(max_forward)
    assert y.is_contiguous(memory_format=layout) and offsets.is_contiguous(memory_format=layout)
    used = x[:, :, : (y.shape[2] - 1) * stride - pad + size]
    assert moved <= most * least(used, y, offsets)

    dy = torch.randn_like(y)
    moved, dx = counted(lambda: ops.max_pool2d_backward(dy, offsets, shape[2:], window, last))
    assert dx.is_contiguous(memory_format=layout) and moved <= most * least(dy, offsets, dx)

    if size == 2:
        moved, y = counted(lambda: ops.avg_pool2d_forward(x, window, False, True, 0))
        assert y.is_contiguous(memory_format=layout) and moved <= most * least(used, y)
        moved, dx = counted(lambda: ops.avg_pool2d_backward(dy, shape[2:], window, True, 0, last))
        assert dx.is_contiguous(memory_format=layout) and moved <= most * least(dy, dx)

    with convlab.simulate(check=False):
        names = names_of(max_forward)
    assert any("max_pool2d" in name for name in names) and not any("copy" in name for name in names), names


@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "channels_last"])
def test_no_layer_of_a_network_copies(layout):
    """On the CPU, forward and backward. A view's elements may lie as they should although its strides of sizes 1 differ."""
    layers = [
        *(convlab.Conv2d(3, 8, 3, padding=1), convlab.LeakyReLU(0.1, inplace=True), convlab.MaxPool2d(2)),
        *(convlab.Conv2d(8, 16, 3, padding=1), convlab.ReLU(True), convlab.AvgPool2d(2), convlab.PReLU(16)),
        *(convlab.ConvTranspose2d(16, 8, 2, stride=2), convlab.ReLU6(True), convlab.AdaptiveMaxPool2d(4)),
        *(convlab.Conv2d(8, 16, 1), convlab.LeakyReLU(-0.5), convlab.AdaptiveAvgPool2d(1), convlab.PReLU()),
    ]
    model = torch.nn.Sequential(*layers).to(memory_format=layout)
    x = torch.randn(2, 3, 16, 16).contiguous(memory_format=layout).requires_grad_()
    dy = torch.randn(2, 16, 1, 1)
    names = names_of(lambda: model(x).backward(dy))
    assert sum("convlab" in name for name in names) >= 2 * len(layers)
    assert not [name for name in names if "copy" in name or "clone" in name]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_activations(dtype, layout):
    x = torch.randn(2, 16, 16, 32).to(dtype).contiguous(memory_format=layout)
    last = layout is torch.channels_last
    for as_bits in (True, False):
        moved, (y, positive) = counted(lambda as_bits=as_bits: ops.leaky_relu_forward(x, 0.1, True, as_bits))
        assert moved <= 1.02 * least(x, y, positive) and positive.numel() == x.numel() // (8 if as_bits else 1)
        moved, dx = counted(lambda kept=positive: ops.leaky_relu_backward(x, kept, 0.1, last))
        assert moved <= 1.02 * least(x, positive, dx)
    moved, y = counted(lambda: ops.relu_forward(x))
    assert moved <= 1.02 * least(x, y)
    moved, dx = counted(lambda: ops.relu_backward(x, y))
    assert moved <= 1.02 * least(x, y, dx)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size, most", [(2, 1.08), (1, 1.02)])
def test_endings_of_blocks(size, most, dtype):
    """What a block does beside its convolution, here of a rung that has no epilogue"""
    algo = next(a.number for a in convlab.algorithms() if a.name == "depthwise")
    x, w, geometry = torch.randn(4, 16, 16, 32).to(dtype), torch.randn(16, 1, 3, 3).to(dtype), [1] * 8 + [16]
    ending = ops.ACTIVATIONS["leaky_relu"], size, size
    moved, (y, winners) = counted(
        lambda: ops.conv2d_block_forward(x, w, None, geometry, ending, 0.1, True, algo),
        ("finish_kernel", "unary_kernel"),
    )
    assert moved <= most * least(x, y, winners)  # the convolution's output is as large as x
    no = False, False, False
    moved, _ = counted(
        lambda: ops.conv2d_block_backward(
            y, winners, None, w, x.shape[2:], w.shape[2:], geometry, ending, 0.1, *no, (algo, 0)
        ),
        ("spread_kernel", "binary_kernel"),
    )
    assert moved <= most * least(y, winners, x)
