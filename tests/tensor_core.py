"""The rungs on tensor cores under test: every pass in every precision and layout, against an emulation that rounds operands
as the hardware does, in float64."""

import random
from contextlib import nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from ladder import spans_tiles

import convlab
from convlab import ops
from convlab._algorithms import Algorithm, with_each_tile
from convlab.testing import Conv

RUNG = next(a for a in convlab.algorithms() if a.name == "tensor_core")
WARPGROUP = next(a for a in convlab.algorithms() if a.name == "warpgroup")
NUMBER = RUNG.number
TF32 = 1 << 16  # kWithTf32 of csrc/algorithms.h
PRECISIONS = {
    "float16": (torch.float16, 0),
    "bfloat16": (torch.bfloat16, 0),
    "tf32": (torch.float32, TF32),
    "3xtf32": (torch.float32, 0),
}
PASSES = ("forward", "dgrad", "wgrad")


def to_tf32(t: torch.Tensor) -> torch.Tensor:
    """float32 to 11 significant bits: to nearest, ties away from zero."""
    return ((t.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def truncated(t: torch.Tensor) -> torch.Tensor:
    """float32 without its last 13 bits: what wgmma makes of what nobody has rounded."""
    return (t.view(torch.int32) & ~0x1FFF).view(torch.float32)


def halves(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    big = to_tf32(t)
    return big, to_tf32(t - big)


def _seen(a: torch.Tensor, b: torch.Tensor, precision: str, rung) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the tensor cores see of float32 a and b: pairs whose products are summed."""
    by_warpgroups = rung.name.startswith(WARPGROUP.name)
    if precision == "tf32":
        return [((truncated if by_warpgroups else to_tf32)(a), to_tf32(b))]
    (big_a, small_a), (big_b, small_b) = halves(a), halves(b)
    if by_warpgroups:
        small_a, big_b = truncated(a - big_a), truncated(b)
        small_b = to_tf32(b - big_b)
    return [(big_a, big_b.double() + small_b), (small_a, big_b)]


def _products(multiply, a, b, precision, rung):
    """multiply(a, b), bilinear, in float64, of what the tensor cores see of a and b."""
    pairs = [(a, b)] if a.dtype != torch.float32 else _seen(a, b, precision, rung)
    return sum(multiply(x.double(), y.double()) for x, y in pairs)


def emulated(conv: Conv, precision: str, x, w, b, dy, rung=RUNG) -> dict[str, list[torch.Tensor]]:
    """The outputs of each pass, and the same of absolute values: by how much the order of sums can move them."""
    arguments = dict(stride=conv.stride, padding=conv.padding, dilation=conv.dilation, groups=conv.groups)

    def forward(x, w):
        return F.conv2d(x, w, None, **arguments)

    def dgrad(dy, w):
        at = torch.zeros(x.shape, dtype=torch.float64).requires_grad_()
        return torch.autograd.grad(forward(at, w), at, dy)[0]

    def wgrad(dy, x):
        at = torch.zeros(w.shape, dtype=torch.float64).requires_grad_()
        return torch.autograd.grad(forward(x, at), at, dy)[0]

    bias = b.double().view(1, -1, 1, 1)
    return {
        "forward": [
            _products(forward, x, w, precision, rung) + bias,
            forward(x.double().abs(), w.double().abs()) + bias.abs(),
        ],
        "dgrad": [_products(dgrad, dy, w, precision, rung), dgrad(dy.double().abs(), w.double().abs())],
        "wgrad": [
            _products(lambda x, dy: wgrad(dy, x), x, dy, precision, rung)
            if precision == "3xtf32"
            else _products(wgrad, dy, x, precision, rung),
            wgrad(dy.double().abs(), x.double().abs()),
        ],
        "bias": [dy.double().sum((0, 2, 3)), dy.double().abs().sum((0, 2, 3))],
    }


def laid(t: torch.Tensor, channels_last: bool) -> torch.Tensor:
    return t.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def check(actual: torch.Tensor, exact: torch.Tensor, magnitude: torch.Tensor, terms: int, what: str) -> None:
    """float32 sums of exact products, in whatever order, and one rounding to the output's type."""
    result = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}[actual.dtype]
    tiny = 2.0**-24 if actual.dtype == torch.float16 else 1e-37
    bound = (terms**0.5 + 4) * 2.0**-24 * magnitude + result * exact.abs() + tiny
    error = (actual.double() - exact).abs()
    assert actual.shape == exact.shape, f"{what}: {actual.shape}, expected {exact.shape}"
    bad = ~(error <= bound)
    assert not bad.any(), (
        f"{what}: {int(bad.sum())} of {bad.numel()} are wrong, the first at {bad.nonzero()[0].tolist()}: "
        f"{actual[bad][0].item()}, expected {exact[bad][0].item()} within {bound[bad][0].item()}"
    )


def run(conv: Conv, precision: str, pass_: str, x, w, b, dy, channels_last: bool, rung=RUNG):
    number = rung.number + PRECISIONS[precision][1]
    geometry = (*conv.stride, *conv.padding * 2, *conv.dilation, conv.groups)
    if pass_ == "forward":
        return [ops.conv2d_forward(x, w, b, geometry, number)]
    if pass_ == "dgrad":
        return [ops.conv2d_dgrad(dy, w, x.shape[2:], geometry, channels_last, number)]
    return list(ops.conv2d_wgrad(dy, x, w.shape[2:], geometry, True, channels_last, number))


@lru_cache
def tiles_of(rung: Algorithm, precision: str, pass_: str) -> dict[str, Algorithm]:
    """The rung with each tile that it can take, by name: by itself it gives small matrices the smallest. None where it has
    not that pass."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, precision == "tf32"
    try:
        any_conv = Conv(2, 16, 9, 9, 16, 3, 3, padding=(1, 1))
        return with_each_tile(rung, any_conv.problem(PRECISIONS[precision][0]), pass_)
    finally:
        torch.backends.cudnn.allow_tf32 = before


def check_conv(
    conv: Conv, precision: str, channels_last: bool, passes=PASSES, mixed=False, device="cpu", rung=RUNG, **mode
) -> None:
    """Runs passes on a GPU, or on the CPU in the simulator, and compares. mixed: dy lies as x and w do not. rung: or
    WARPGROUP, or one of these with a tile of one's own choice."""
    dtype = PRECISIONS[precision][0]
    x, w, b = conv.tensors(dtype)
    dy = torch.randn(conv.N, conv.K, *conv.outputs).to(dtype)
    expected = emulated(conv, precision, x, w, b, dy, rung)
    x, w, dy = laid(x, channels_last), laid(w, channels_last), laid(dy, channels_last != mixed)
    x, w, b, dy = (t.to(device) for t in (x, w, b, dy))
    taps = conv.R * conv.S
    terms = {
        "forward": conv.C // conv.groups * taps + 1,
        "dgrad": conv.K // conv.groups * taps,
        "wgrad": dy[:, 0].numel(),
    }
    for pass_ in passes:
        what = f"{pass_} of {conv} by {rung.name} in {precision}, {'channels_last' if channels_last else 'NCHW'} {mode}"
        try:
            with convlab.simulate(**mode) if device == "cpu" else nullcontext():
                out = [t.cpu() for t in run(conv, precision, pass_, x, w, b, dy, channels_last, rung)]
        except RuntimeError as error:
            raise AssertionError(what) from error
        check(out[0], *expected[pass_], terms[pass_], what)
        if len(out) > 1:
            check(out[1], *expected["bias"], terms["wgrad"], what + ", bias")


def random_conv(rng: random.Random, most: int = 2_000_000, several: tuple[str, str] | None = None, rung=RUNG) -> Conv:
    """Any convolution the rung takes, with extents of one element to a few tiles. several: a precision and a pass in
    which its product spans several tiles each way, with remainders."""

    def extent(*choices):
        return rng.choice(choices)()

    while True:
        groups = rng.choice([1, 1, 1, 1, 2, 3])
        least = 8 if groups > 1 else 1

        def channels(groups=groups, least=least):
            n = extent(lambda: rng.randint(least, 20), lambda: 8 * rng.randint(1, 10), lambda: rng.randint(least, 140))
            return groups * n

        R, S = rng.choice([(1, 1), (3, 3), (rng.randint(1, 5), rng.randint(1, 5))])
        conv = Conv(
            rng.randint(1, 4),
            channels(),
            rng.randint(1, 20),
            rng.randint(1, 20),
            channels(),
            R,
            S,
            rng.choice([(1, 1), (2, 2), (rng.randint(1, 3), rng.randint(1, 3))]),
            rng.choice([(0, 0), (R // 2, S // 2), (rng.randint(0, 3), rng.randint(0, 3))]),
            rng.choice([(1, 1), (1, 1), (rng.randint(1, 3), rng.randint(1, 3))]),
            groups,
        )
        P, Q = conv.outputs
        small = P > 0 and Q > 0 and conv.N * P * Q * conv.K * (conv.C // groups) * R * S < most
        if small and (several is None or spans_tiles(plan_of(conv, *several, rung))):
            return conv


def plan_of(conv: Conv, precision: str, pass_: str, rung=RUNG) -> dict:
    return rung.plan(conv.problem(PRECISIONS[precision][0]), pass_)
