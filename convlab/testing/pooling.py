"""Checking max pooling, to the last bit, and average pooling, against float64."""

import random
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from .cases import AVG_POOLS, POOLS, AvgPool, Pool, random_avg_pool, random_pool
from .compare import assert_close
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


def check_max_pool2d(
    fn: Callable,
    *,
    cases: Iterable[Pool] = POOLS,
    random_cases: int = 20,
    seed: int = 0,
    dtypes=(torch.float32,),
    layouts: Iterable[str] = tuple(LAYOUTS),
    indices: bool = False,
    gradients: bool | None = None,
    device="cpu",
) -> Checked:
    """Checks a max pooling against torch's: values and gradients to the last bit, among them ties, of which the first
    wins.

    fn: called as fn(input, kernel_size, stride, padding, dilation, ceil_mode), returns [N, C, P, Q]; with indices=True
    the pair
        (values, indices) of torch.nn.functional.max_pool2d(..., return_indices=True), and the indices are checked.

    The rest is as in `check_conv2d`.
    """
    checked, rng = Checked.of("check_max_pool2d", fn), random.Random(seed)

    def torchs(x, *window):
        return F.max_pool2d(x, *window, return_indices=True)

    def ours(x, *window):
        result = fn(x, *window)
        return result if indices else (result, None)

    instead = {"padding counts as zeros": lambda x, case: _zero_padded(x, case) if not case.ceil_mode else None}
    with poisoned_memory():
        for case in [*cases, *(random_pool(rng) for _ in range(random_cases))]:
            for dtype in dtypes:
                normal = torch.randn(case.shape).to(dtype)
                ties = torch.randint(-2, 3, case.shape).to(dtype)
                for what, x in (("", normal), (", with ties", ties)):
                    _check_case(
                        ours,
                        torchs,
                        case,
                        f"max_pool2d {case} in {_name(dtype)}{what}",
                        x.to(device),
                        layouts,
                        None,
                        instead,
                        gradients,
                        checked,
                    )
    return checked.finish()


def check_avg_pool2d(
    fn: Callable,
    *,
    cases: Iterable[AvgPool] = AVG_POOLS,
    random_cases: int = 20,
    seed: int = 0,
    dtypes=(torch.float32,),
    layouts: Iterable[str] = tuple(LAYOUTS),
    gradients: bool | None = None,
    device="cpu",
) -> Checked:
    """Checks an average pooling against float64: values and gradients, within what rounding allows.

    fn: called as fn(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override), returns [N,
    C, P, Q].

    The rest is as in `check_conv2d`.
    """
    checked, rng = Checked.of("check_avg_pool2d", fn), random.Random(seed)
    instead = {
        "count_include_pad the other way round": lambda x, case: F.avg_pool2d(
            x, *case._replace(count_include_pad=not case.count_include_pad)[1:]
        ),
        "divided by the whole window": lambda x, case: F.avg_pool2d(x, *case._replace(divisor_override=case.taps)[1:]),
        "sums, not averages": lambda x, case: F.avg_pool2d(x, *case._replace(divisor_override=1)[1:]),
    }

    def ours(x, *window):
        return fn(x, *window), None

    def torchs(x, *window):
        return F.avg_pool2d(x, *window), None

    with poisoned_memory():
        for case in [*cases, *(random_avg_pool(rng) for _ in range(random_cases))]:
            for dtype in dtypes:
                x = torch.randn(case.shape).to(device, dtype)
                _check_case(
                    ours,
                    torchs,
                    case,
                    f"avg_pool2d {case} in {_name(dtype)}",
                    x,
                    layouts,
                    8 * torch.finfo(dtype).eps,
                    instead,
                    gradients,
                    checked,
                )
    return checked.finish()


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def _check_case(ours, torchs, case, what, x, layouts, eps, instead, gradients, checked: Checked):
    """eps: what a result may be off, as a share of what was summed up for it; None: nothing."""
    exact = x.detach().cpu().double().requires_grad_()
    expected, expected_indices = torchs(exact, *case[1:])
    dy = torch.randint(-8, 9, expected.shape)  # small integers: max pooling's sums of them are exact in every dtype
    (expected_dx,) = torch.autograd.grad(expected, exact, dy.double())
    magnitudes = exact.detach().abs().requires_grad_()
    total = torchs(magnitudes, *case[1:])[0]
    (dx_total,) = torch.autograd.grad(total, magnitudes, dy.double().abs())
    bounds = [None if eps is None else eps * t.detach().abs() + torch.finfo(x.dtype).tiny for t in (total, dx_total)]
    others = {sentence: lambda f=f: f(exact.detach(), case) for sentence, f in instead.items()}

    def run(how, change):
        a, g = change(x).detach().requires_grad_(gradients is not False), change(dy.to(x.device, x.dtype))
        y, indices = checked.call(what + how, ours, a, *case[1:])
        expect_tensor(y, x, what + how)
        assert_close(y, expected.detach(), bounds[0], what + how, "ncpq", others)
        if indices is not None:
            assert_close(indices, expected_indices.double(), None, f"{what}{how}, indices", "ncpq")
        if not y.requires_grad:
            return [y]
        (dx,) = torch.autograd.grad(y, a, g)
        assert_close(dx, expected_dx, bounds[1], f"{what}{how}, gradient", "nchw")
        return [y.detach(), dx]

    try:
        before = x.clone()
        first = run("", lambda t: t)
        expect_unchanged([x], [before], what)
        expect_same_bits(first, run("", lambda t: t), what)
        for name in layouts:
            if name != "contiguous":
                with of_layout(name):
                    run(f", {name} input and gradient", LAYOUTS[name])
    except Refused:
        pass


def _zero_padded(x, case: Pool):
    pad = case.padding if isinstance(case.padding, tuple) else (case.padding,) * 2
    return F.max_pool2d(F.pad(x, (pad[1], pad[1], pad[0], pad[0])), case.kernel_size, case.stride, 0, case.dilation)
