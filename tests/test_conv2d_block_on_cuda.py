"""A block's forward on CUDA, in the simulator: the bits of the three layers by every rung, and where a rung has the ending
as its epilogue, one launch that writes nothing of full size."""

import math
import random

import pytest
import torch

import convlab
import convlab.functional as CF
from convlab import layers, ops
from convlab.explain.counting import count_call
from convlab.simulator import launches_of
from convlab.testing import AWKWARD, random_conv

EPILOGUES = ["small_filter", "direct", "register_tiled"]  # that have one
SMALL_FILTERS = [(1, 6, 5, 5), (6, 16, 5, 5), (3, 32, 3, 3), (1, 4, 7, 7), (4, 16, 7, 7)]
# activation, slope, window. Of the epilogues, direct's alone has a window of 3 x 2.
ENDS = [
    ("leaky_relu", 0.1, (2, 2)),
    ("relu", 0.0, (2, 2)),
    ("leaky_relu", -1.5, (1, 1)),
    (None, 0.0, (2, 2)),
    ("relu", 0.0, (1, 1)),
    ("leaky_relu", 0.2, (3, 2)),
    ("relu6", 0.0, (2, 2)),
    ("relu6", 0.0, (1, 1)),
]


def same_bits(a, b):
    """NaN for NaN, whichever it is; and -0.0 is not 0.0."""
    as_integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    a, b = (t.masked_fill(t.isnan(), 7).view(as_integers) for t in (a, b))
    return a.shape == b.shape and torch.equal(a, b)


def check_bits(tensors, arguments, end, algo, **mode):
    """y, and the byte of each window, against convlab's own convolution, activation and pooling on the CPU's tensors"""
    activation, slope, window = end
    x, w, bias = tensors
    shown = f"{tuple(x.shape)} {tuple(w.shape)} {arguments} {end} {algo} {x.dtype}"
    stride, padding, dilation, groups = arguments
    geometry = (*stride, *padding, *padding, *dilation, groups)
    with convlab.simulate(**mode):
        full = CF.conv2d(x, w, bias, *arguments, algo=algo)
        if window[0] > full.shape[2] or window[1] > full.shape[3] or not full.numel():
            return
        number = next((a.number for a in convlab.algorithms() if a.name == algo), 0)
        ending = (ops.ACTIVATIONS[activation], *window)
        y, winners = ops.conv2d_block_forward(x, w, bias, geometry, ending, slope, True, number)
        alone, none = ops.conv2d_block_forward(x, w, bias, geometry, ending, slope, False, number)
        slopes = (slope,) if activation == "leaky_relu" else ()
        after = full if activation is None else getattr(CF, activation)(full, *slopes)
        expected, offsets = ops.max_pool2d_forward(after, ops.window_of(ending), False, True)
    assert same_bits(y, expected), shown
    assert same_bits(alone, expected) and not none.numel(), shown
    assert torch.equal(winners & ops.TAP, offsets), shown
    flat = offsets.long() // window[1] * full.shape[3] + offsets.long() % window[1]
    corners = torch.arange(y.shape[2])[:, None] * window[0] * full.shape[3] + torch.arange(y.shape[3]) * window[1]
    won = full.flatten(2).gather(2, (flat + corners).flatten(2)).view_as(y)
    passes = torch.ones_like(won, dtype=torch.bool) if activation is None else ~(won <= 0)
    if activation == "leaky_relu":
        passes = won > 0
    if activation == "relu6":
        passes &= ~(won >= 6)
    assert torch.equal(winners > ops.TAP, passes), shown


def drawn(rng, x, w, dtype=torch.float32):
    """Sometimes with ties, NaN and infinities, and without a bias"""
    x, w, bias = (torch.randn(shape).to(dtype) for shape in (x, w, w[:1]))
    if rng.random() < 0.3:
        x, w, bias = x.round(), w.round(), bias.round()
    if rng.random() < 0.3 and x.numel():
        x.view(-1)[torch.randint(x.numel(), (3,))] = rng.choice([float("nan"), float("inf"), -float("inf")])
    if rng.random() < 0.2:
        x = x.to(memory_format=torch.channels_last)
    return x, w, bias if rng.random() < 0.7 else None


def random_call(rng, algo):
    dtype = rng.choice([torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16])
    if algo == "small_filter":
        c, k, r, s = rng.choice(SMALL_FILTERS)
        pad = rng.randint(0, 3), rng.randint(0, 3)
        size = [rng.randint(max(filter_ - 2 * padding, 1), 17) for filter_, padding in zip((r, s), pad)]
        return drawn(rng, (rng.choice([1, 2, 3, 9]), c, *size), (k, c, r, s)), ((1, 1), pad, (1, 1), 1)
    conv = random_conv(rng)
    if algo == "implicit_gemm":
        dtype = torch.float32
    if algo == "register_tiled" and dtype is torch.float64:
        dtype = torch.bfloat16
    return drawn(rng, conv.x, conv.w, dtype), (conv.stride, conv.padding, conv.dilation, conv.groups)


def check_random_calls(count, seed, check, algorithms=(*EPILOGUES, "implicit_gemm")):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    for i in range(count):
        algo = algorithms[i % len(algorithms)]
        tensors, arguments = random_call(rng, algo)
        order = rng.choice(["forward", "reverse", "random"])
        check_bits(tensors, arguments, rng.choice(ENDS), algo, check=check, order=order, seed=i)


@pytest.mark.parametrize("check", [False, True])
def test_random_calls(check):
    check_random_calls(40, 0, check)


@pytest.mark.long
@pytest.mark.parametrize("check", [False, True])
def test_a_thousand_random_calls(check):
    check_random_calls(1000, 1, check)


@pytest.mark.parametrize("check", [False, True])
def test_awkward_shapes(check):
    rng = random.Random(2)
    torch.manual_seed(2)
    for i, conv in enumerate(c for c in AWKWARD if c.N):
        arguments = (conv.stride, conv.padding, conv.dilation, conv.groups)
        check_bits(drawn(rng, conv.x, conv.w), arguments, ENDS[i % len(ENDS)], "direct", check=check)


def block_of(layer, algo, window, with_winners=True):
    """The call of a layer's block, and of its convolution alone"""
    number = next(a.number for a in convlab.algorithms() if a.name == algo)
    x, w, geometry = torch.randn(layer.x), torch.randn(layer.w), layer.problem().geometry
    return (
        lambda: ops.conv2d_block_forward(x, w, None, geometry, (2, *window), 0.1, with_winners, number),
        lambda: ops.conv2d_forward(x, w, None, geometry, number),
    )


LAYERS = {layer.name: layer for layer in layers.noted()}
CASES = [
    (layer, algo, window)
    for layer in LAYERS
    for algo in EPILOGUES
    for window in ((2, 2), (1, 1))
    if algo != "small_filter" or layer.startswith("LeNet")
]


@pytest.mark.parametrize("layer, algo, window", CASES)
def test_one_launch(layer, algo, window):
    block, _ = block_of(LAYERS[layer], algo, window)
    assert len(launches_of(block)) == 1


def test_a_lenet_block_is_one_launch():
    x, w, bias = torch.randn(4, 1, 32, 32), torch.randn(6, 1, 5, 5), torch.randn(6)
    with convlab.simulate(check=False) as simulation:
        CF.conv2d_block(x, w, bias, activation="leaky_relu", pool=2)
    (launch,) = simulation.launches
    assert "small_filter_block" in launch.kernel


def test_a_rung_without_an_epilogue_has_a_launch_for_the_ending():
    block, _ = block_of(LAYERS["LeNet C3"], "implicit_gemm", (2, 2))
    assert len(launches_of(block)) == 2
    for algo in ("small_filter", "register_tiled"):  # they have no such window
        block, _ = block_of(LAYERS["LeNet C3"], algo, (3, 2))
        assert len(launches_of(block)) == 2


@pytest.mark.parametrize("layer, algo, window", CASES)
def test_sectors(layer, algo, window):
    """A block moves at most what its convolution alone moves, and the pooled tensors. Of x and w, direct asks L1 for 2 % more,
    where two blocks share a row of windows, and register_tiled for up to 13 %, its warps' pixels being in two rows; past
    L1, that is less than the pooling saves."""
    layer = LAYERS[layer]
    block, convolution = block_of(layer, algo, window)
    whole, alone = count_call(block), count_call(convolution)

    def sectors(counted, *memories):
        return sum(row.sectors for row in counted.traffic if row.memory in memories)

    def past_l1(counted):
        return sum(
            row.sectors if row.access == "write" else row.missed for row in counted.traffic if row.space != "shared"
        )

    assert past_l1(whole) <= past_l1(alone) + sectors(whole, "output", "winners")
    more = {"direct": 1.02, "register_tiled": 1.13}.get(algo, 1)
    assert whole.sectors - sectors(whole, "output", "winners") <= more * (alone.sectors - sectors(alone, "output"))
    assert sectors(whole, "output") <= sectors(alone, "output")
    outputs = math.prod(layer.y[:2]) * (layer.y[2] // window[0]) * (layer.y[3] // window[1])
    requested = whole.requested_by_tensor
    assert requested["y"] == 4 * outputs and requested["winners"] == outputs
