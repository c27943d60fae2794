"""convlab.testing passes what is right, and says of what is wrong where, and what it suggests."""

import pytest
import torch
import torch.nn.functional as F

from convlab import testing
from convlab.testing import CheckError

# ---- what is right
# ----------------------------------------------------------------------------------------------------


def test_torchs_own():
    assert testing.check_conv2d(F.conv2d, gradients=True).calls > 200
    assert testing.check_max_pool2d(F.max_pool2d, dtypes=testing.DTYPES, gradients=True).calls > 200
    assert testing.check_max_pool2d(lambda *t: F.max_pool2d(*t, return_indices=True), indices=True).calls > 200
    assert testing.check_avg_pool2d(F.avg_pool2d, gradients=True).calls > 200
    assert testing.check_leaky_relu(F.leaky_relu, gradients=True).calls > 100
    assert testing.check_relu(F.relu, gradients=True).calls > 20


def test_torch_is_left_as_it_was():
    torch.use_deterministic_algorithms(False)
    before = torch.utils.deterministic.fill_uninitialized_memory
    testing.check_relu(F.relu)
    assert (
        not torch.are_deterministic_algorithms_enabled()
        and torch.utils.deterministic.fill_uninitialized_memory == before
    )


def test_what_a_callable_refuses_is_skipped():
    def without_groups(x, w, b, stride, padding, dilation, groups):
        if groups > 1:
            raise NotImplementedError("has no groups")
        return F.conv2d(x, w, b, stride, padding, dilation)

    checked = testing.check_conv2d(without_groups)
    assert (
        checked.calls > 100 and all(reason.endswith("has no groups") for reason in checked.skipped) and checked.skipped
    )

    def nothing(*_):
        raise NotImplementedError("can nothing")

    with pytest.raises(CheckError, match=r"refused every problem.*can nothing"):
        testing.check_conv2d(nothing)


@pytest.mark.parametrize(
    "op", ["check_conv2d", "check_max_pool2d", "check_avg_pool2d", "check_leaky_relu", "check_relu"]
)
def test_what_is_no_function(op):
    with pytest.raises(TypeError, match=f"^{op}: fn must be a function, got 'conv2d'"):
        getattr(testing, op)("conv2d")


# ---- what is wrong
# ----------------------------------------------------------------------------------------------------


def unwritten_column(*t):
    y = torch.empty_like(F.conv2d(*t))
    y[..., :-1] = F.conv2d(*t)[..., :-1]
    return y


def reads_as_if_contiguous(x, *t):
    return F.conv2d(torch.as_strided(x, x.shape, torch.empty(x.shape).stride()), *t)


def forgets_images(*t):
    y = F.conv2d(*t)
    return torch.cat([y[:1], torch.zeros_like(y[1:])])


def rounds_on_the_way(x, w, b, *rest):
    return F.conv2d(x.bfloat16(), w.bfloat16(), b if b is None else b.bfloat16(), *rest).float()


def of_no_effect_on_w(x, w, *rest):
    return F.conv2d(x, (w + w.detach()) / 2, *rest)


def changes_x(x, *rest):
    y = F.conv2d(x, *rest)
    x.data.add_(1)
    return y


WRONG = {
    "the bias was left out": lambda x, w, b, *r: F.conv2d(x, w, None, *r),
    "the filter is flipped": lambda x, w, *r: F.conv2d(x, w.flip(2, 3), *r),
    "only the first input channel was summed": lambda x, w, *r: F.conv2d(
        x, w * (torch.arange(w.shape[1]) == 0)[:, None, None], *r
    ),
    "2 times what they should be": lambda *t: 2 * F.conv2d(*t),
    "q = 8 (the last)": unwritten_column,
    "nobody wrote these elements": unwritten_column,
    "contiguous tensors come out right": reads_as_if_contiguous,
    "n = 1 (the last)": forgets_images,
    "all of them are zero": forgets_images,
    "rounding": rounds_on_the_way,
    "wgrad: 135 of 135 elements": of_no_effect_on_w,
    "changed its argument x": changes_x,
    "other bits in another run": lambda *t: F.conv2d(*t) * (1 + 1e-6 * torch.rand(1)),
    "shape (2, 5, 5, 8)": lambda *t: F.conv2d(*t)[..., 1:],
    "raised ZeroDivisionError": lambda *t: 1 / 0,
    "returned torch.float64": lambda *t: F.conv2d(*t).double(),
    "returned NoneType": lambda *t: None,
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_convolutions(words):
    with pytest.raises(CheckError) as caught:
        testing.check_conv2d(WRONG[words])
    assert words in str(caught.value)
    assert str(caught.value).startswith("x2.3.7.11-w5.3.3")  # the first problem shows it already


@pytest.mark.parametrize(
    "check,fn,words",
    [
        (
            testing.check_max_pool2d,
            lambda x, k, s, p, d, c: F.max_pool2d(x.nan_to_num(), k, s, p, d, c) + 1e-6,
            "the first is at [n=",
        ),
        (testing.check_max_pool2d, lambda x, k, s, p, d, c: _zero_padded(x, k, s, p, d, c), "padding counts as zeros"),
        (
            testing.check_avg_pool2d,
            lambda x, k, s, p, c, i, o: F.avg_pool2d(x, k, s, p, c, not i, o),
            "count_include_pad the other way round",
        ),
        (testing.check_avg_pool2d, lambda x, k, s, p, c, i, o: F.avg_pool2d(x, k, s, p, c, i, 1), "sums, not averages"),
        (testing.check_leaky_relu, lambda x, s: F.relu(x), "the slope was left out"),
        (testing.check_leaky_relu, lambda x, s: torch.maximum(x, s * x), "elements are wrong"),  # slopes above 1
        (testing.check_relu, lambda x: F.leaky_relu(x, 0.0), "of special values"),  # -inf times 0
        (testing.check_relu, lambda x: F.relu(x).nan_to_num(nan=0.0, posinf=torch.inf), "NaN became 0"),
    ],
)
def test_wrong_poolings_and_activations(check, fn, words):
    with pytest.raises(CheckError) as caught:
        check(fn)
    assert words in str(caught.value)


def _zero_padded(x, kernel, stride, padding, dilation, ceil_mode):
    pad = padding if isinstance(padding, tuple) else (padding, padding)
    if ceil_mode:
        raise NotImplementedError
    return F.max_pool2d(F.pad(x, (pad[1], pad[1], pad[0], pad[0])), kernel, stride, 0, dilation)
