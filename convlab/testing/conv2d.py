"""Checking a convolution, its three gradients and its manners, against float64."""

import contextlib
import random
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from .cases import AWKWARD, Conv, random_conv
from .compare import Alternatives, assert_sums_close, conv_in_float64
from .probe import (
    LAYOUTS,
    Checked,
    Refused,
    expect_same_bits,
    expect_tensor,
    expect_unchanged,
    of_layout,
    poisoned_memory,
)

_DIMS = {"dgrad": "nchw", "wgrad": "kcrs", "bias gradient": "k"}


def check_conv2d(
    fn: Callable,
    *,
    cases: Iterable[Conv] = AWKWARD,
    random_cases: int = 20,
    seed: int = 0,
    dtypes=(torch.float32,),
    layouts: Iterable[str] = tuple(LAYOUTS),
    gradients: bool | None = None,
    device="cpu",
) -> Checked:
    """Checks a convolution against float64, on problems made to break it.

    fn: called as fn(input, weight, bias, stride, padding, dilation, groups) with what torch.nn.functional.conv2d takes:
    input
        [N, C, H, W], weight [K, C/groups, R, S], bias [K] or None, three pairs of ints, an int. It returns [N, K, P, Q]
        of the input's dtype. What it cannot do, it refuses with NotImplementedError; such problems are skipped and
        counted.
    cases, random_cases, seed: the problems, and how many random ones follow them.
    dtypes: sums may be off by what float32 rounds (float64: what float64 rounds), and the result by one rounding of its
    own type. layouts: keys of `convlab.testing.LAYOUTS`, for inputs and gradients.
    gradients: whether to check those that autograd computes through fn; None: if the result requires them.
    device: where the tensors lie. Under `convlab.simulate()` the CUDA kernels are checked.

    Each problem runs with every layout, with an expanded input and gradient, without a bias, and twice, for the same
    bits. New tensors are full of NaN, so that what fn forgets to write shows. Raises CheckError (an AssertionError) for
    the first thing that is wrong: where, by how much, and what it suggests. Returns what was checked.
    """
    checked, rng = Checked.of("check_conv2d", fn), random.Random(seed)
    with poisoned_memory():
        for case in [*cases, *(random_conv(rng) for _ in range(random_cases))]:
            for dtype in dtypes:
                with contextlib.suppress(Refused):
                    _check_case(fn, case, dtype, layouts, gradients, device, checked)
    return checked.finish()


def check_conv(convolve, x, w, b, dy, arguments, what="", gradients: bool | None = True):
    """Checks one convolution and its three gradients against float64 on the same inputs; returns y and the gradients.

    convolve(x, w, b) must be differentiable, or gradients False. x, w, b (or None) and dy may lie on any device, in any
    layout.
    """
    leaves = [t.detach().requires_grad_(gradients is not False) for t in (x, w, b) if t is not None]
    y = convolve(*leaves, *([] if b is not None else [None]))
    expect_tensor(y, x, what)
    (y64, *exact), (y_abs, *magnitudes) = conv_in_float64((x, w, b), dy, arguments)
    assert_sums_close(
        y, y64, y_abs, w[0].numel() + 1, f"{what} forward", "nkpq", instead_of_forward(x, w, b, y64, arguments)
    )
    if gradients is False or (gradients is None and not y.requires_grad):
        return [y]
    results = torch.autograd.grad(y, leaves, dy)
    terms = [w.shape[0] // arguments[3] * w.shape[2] * w.shape[3], y[:, 0].numel(), y[:, 0].numel()]
    others = [instead_of_dgrad(x, w, dy, arguments), instead_of_wgrad(x, w, dy, exact[1], arguments), {}]
    for (name, dims), *values, other in zip(_DIMS.items(), results, exact, magnitudes, terms, others):
        assert_sums_close(*values, f"{what} {name}", dims, other)
    return [y, *results]


def _check_case(fn, case: Conv, dtype, layouts, gradients, device, checked: Checked):
    x, w, b = case.tensors(dtype, device)
    dy = torch.randn(case.N, case.K, *case.outputs, dtype=dtype, device=device)

    def run(how, x, w, b, dy):
        what, before = (
            f"{case} in {str(dtype).removeprefix('torch.')}{how}",
            [None if t is None else t.clone() for t in (x, w, b)],
        )

        def convolve(*tensors):
            y = checked.call(what, fn, *tensors, *case.arguments)
            expect_unchanged((x, w, b), before, what)
            return y

        return check_conv(convolve, x, w, b, dy, case.arguments, what, gradients)

    first = run("", x, w, b, dy)
    expect_same_bits(first, run("", x, w, b, dy), str(case))
    run(", no bias", x, w, None, dy)
    if case.N > 1:
        with of_layout("expanded"):
            # a small integer, because rounding does not even out in sums of equal numbers
            run(
                ", expanded input and gradient",
                x[:1].expand_as(x),
                w,
                b,
                torch.full_like(dy[:1, :1, :1, :1], 2).expand_as(dy),
            )
    for name in layouts:
        if name != "contiguous":
            change = LAYOUTS[name]
            with of_layout(name):
                run(f", {name} input and gradient", change(x), w, b, change(dy))
                run(f", {name} weight", x, change(w), b, dy)


# ---- what it might have computed instead
# ------------------------------------------------------------------------------


def _forward(x, w, b, outputs, stride, padding, dilation, groups):
    """A convolution cropped, or continued into zeros, to P x Q = outputs; None if it is none."""
    room = [s * (o - 1) + d * (k - 1) + 1 for s, o, d, k in zip(stride, outputs, dilation, w.shape[2:])]
    x = F.pad(
        x,
        (padding[1], max(room[1] - x.shape[3] - padding[1], 0), padding[0], max(room[0] - x.shape[2] - padding[0], 0)),
    )
    return F.conv2d(x, w, b, stride, 0, dilation, groups)[:, :, : outputs[0], : outputs[1]]


def instead_of_forward(x, w, b, y64, arguments) -> Alternatives:
    x, w, b = (None if t is None else t.detach().to("cpu", torch.float64) for t in (x, w, b))
    stride, padding, dilation, groups = arguments

    def of(w=w, b=b, s=stride, p=padding, d=dilation):
        return _forward(x, w, b, y64.shape[2:], s, p, d, groups)

    return {
        "the bias was left out": lambda: of(b=None) if b is not None else None,
        "the bias was added twice": lambda: of(b=2 * b) if b is not None else None,
        "the filter is flipped (a convolution of mathematics, not the correlation of deep learning)": lambda: of(
            w=w.flip(2, 3)
        ),
        "rows and columns of the filter are exchanged": lambda: (
            of(w=w.transpose(2, 3)) if w.shape[2] == w.shape[3] else None
        ),
        "the dilation was left out": lambda: of(d=(1, 1)),
        "the padding was left out": lambda: of(p=(0, 0)),
        "the stride was left out": lambda: of(s=(1, 1)),
        "stride_h and stride_w are exchanged": lambda: of(s=stride[::-1]),
        "pad_h and pad_w are exchanged": lambda: of(p=padding[::-1]),
        "dilation_h and dilation_w are exchanged": lambda: of(d=dilation[::-1]),
        "every image is the first one": lambda: y64[:1].expand_as(y64),
        "only the last input channel was summed": lambda: of(w=torch.cat([torch.zeros_like(w[:, :-1]), w[:, -1:]], 1)),
        "only the first input channel was summed": lambda: of(w=torch.cat([w[:, :1], torch.zeros_like(w[:, 1:])], 1)),
    }


def _gradient(which, x, w, dy, arguments):
    x, w = (t.detach().to("cpu", torch.float64).requires_grad_() for t in (x, w))
    return torch.autograd.grad(F.conv2d(x, w, None, *arguments), (x, w)[which], dy.to("cpu", torch.float64))[0]


def instead_of_dgrad(x, w, dy, arguments) -> Alternatives:
    return {
        "the filter is flipped: dx gathers dy[p, q] w[h - p, ...], not w[R - 1 - ...]": lambda: _gradient(
            0, x, w.flip(2, 3), dy, arguments
        )
    }


def instead_of_wgrad(x, w, dy, dw, arguments) -> Alternatives:
    def image(n):
        return _gradient(1, x[n : n + 1], w, dy[n : n + 1], arguments)

    return {
        "it was averaged over the batch, not summed": lambda: dw / max(len(x), 1),
        "only the first image was summed": lambda: image(0),
        "only the last image was summed: each one overwrites what was there": lambda: image(len(x) - 1),
        "the filter's taps are in reverse order": lambda: dw.flip(2, 3),
    }
