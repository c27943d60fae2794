"""conv2d and its gradients are torch's, for every algorithm, dtype and layout."""

import random

import pytest
import torch
import torch.nn.functional as F

import convlab
import convlab.functional as CF
from convlab.testing import AWKWARD, DTYPES, LAYOUTS, Conv, check_conv, check_conv2d, random_conv

# The outputs of a winograd_4x4 tile share their rounding: tests/test_winograd.py has its bounds
NAMES = ["auto", *(a.name for a in convlab.algorithms() if a.name != "winograd_4x4")]


def runs(algo, conv: Conv, device, dtype=torch.float32):
    """Whether an algorithm supports a problem in every pass that it has on this device."""
    x, w, _ = conv.tensors(dtype, device)
    problem = convlab.Conv2dProblem.of(x, w, *conv.arguments)
    chosen = [a for a in convlab.algorithms() if a.name == algo and device in a.backends]
    return algo == "auto" or any(
        all(a.supports(problem, pass_)[0] for pass_ in a.passes_by_backend[device]) for a in chosen
    )


@pytest.mark.works_with("sizes that no tile divides")
@pytest.mark.works_with("inputs and gradients that are not contiguous: slices, transposes, expanded")
@pytest.mark.parametrize("algo", NAMES)
@pytest.mark.parametrize("conv", AWKWARD, ids=str)
def test_awkward_shapes(conv, algo, device):
    """convlab.testing's checks of forward and gradients, run twice in every dtype and layout."""
    dtypes = [dtype for dtype in DTYPES if runs(algo, conv, device, dtype)]
    if not dtypes:
        pytest.skip(f"{algo} does not do this on {device}")
    check_conv2d(
        lambda *t: CF.conv2d(*t, algo=algo), cases=[conv], random_cases=0, dtypes=dtypes, gradients=True, device=device
    )


@pytest.mark.parametrize("chunk", range(8))
def test_random_problems(chunk, device):
    rng = random.Random(chunk)
    for _ in range(50):
        conv = random_conv(rng)
        dtype = rng.choice(DTYPES)
        algo = rng.choice([name for name in NAMES if runs(name, conv, device, dtype)])
        x, w, b = conv.tensors(dtype, device, bias=rng.random() < 0.7)
        dy = torch.randn(conv.N, conv.K, *conv.outputs, dtype=dtype, device=device)
        check_conv(lambda *t: CF.conv2d(*t, *conv.arguments, algo=algo), x, w, b, dy, conv.arguments, f"{algo}, {conv}")


def test_output_layout_is_torchs(device):
    for conv in AWKWARD:
        for change_x in (lambda t: t, LAYOUTS["channels_last"]):
            for change_w in (lambda t: t, LAYOUTS["channels_last"]):
                x, w, b = conv.tensors(device=device)
                x, w = change_x(x), change_w(w)
                y, expected = CF.conv2d(x, w, b, *conv.arguments), F.conv2d(x, w, b, *conv.arguments)
                assert y.is_contiguous() == expected.is_contiguous(), conv
                if expected.is_contiguous(memory_format=torch.channels_last):
                    assert y.is_contiguous(memory_format=torch.channels_last), conv


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_padding_same_and_valid(device):
    for kernel in [(3, 3), (2, 5), (4, 1), (1, 2)]:
        for dilation in [(1, 1), (2, 3)]:
            x, w = torch.randn(2, 3, 9, 16, device=device), torch.randn(4, 3, *kernel, device=device)
            for padding in ("same", "valid"):
                y, expected = CF.conv2d(x, w, None, 1, padding, dilation), F.conv2d(x, w, None, 1, padding, dilation)
                torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_forms_of_arguments(device):
    x, w, b = Conv(2, 4, 9, 8, 6, 3, 3).tensors(device=device)
    expected = F.conv2d(x, w, b, 2, 1)
    for stride, padding in [(2, 1), ((2,), [1]), ([2, 2], (1, 1))]:
        torch.testing.assert_close(CF.conv2d(x, w, b, stride, padding), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        CF.conv2d(input=x, weight=w, bias=b, stride=2, padding=1, dilation=1, groups=1), expected, rtol=1e-4, atol=1e-4
    )


def test_unbatched(device):
    x, w, b = Conv(1, 3, 9, 8, 6, 3, 3).tensors(device=device)
    y = CF.conv2d(x[0], w, b)
    assert y.shape == (6, 7, 6)
    torch.testing.assert_close(y, F.conv2d(x[0], w, b), rtol=1e-4, atol=1e-4)


def test_no_gradient_that_nobody_wants(device):
    """Frozen weights and data inputs cost nothing: only the operators whose result is used run."""
    import torch.profiler as profiler

    expected = {
        (True, True, True): {"conv2d_backward"},
        (True, True, False): {"conv2d_backward"},
        (True, False, False): {"conv2d_dgrad"},
        (False, True, False): {"conv2d_wgrad"},
        (False, False, True): {"conv2d_bias_grad"},
        (True, False, True): {"conv2d_dgrad", "conv2d_bias_grad"},
    }
    for wanted, operators in expected.items():
        x, w, b = (t.requires_grad_(r) for t, r in zip(Conv(2, 3, 7, 7, 4, 3, 3).tensors(device=device), wanted))
        y = CF.conv2d(x, w, b)
        with profiler.profile() as p:
            y.sum().backward()
        ran = {e.key.removeprefix("convlab::") for e in p.key_averages() if e.key.startswith("convlab::")}
        assert ran == operators
        assert [t.grad is not None for t in (x, w, b)] == list(wanted)


def test_autocast(device):
    conv = Conv(2, 3, 9, 8, 6, 3, 3)
    for dtype in (torch.bfloat16, torch.float16):
        x, w, b = (t.requires_grad_() for t in conv.tensors(device=device))
        with torch.autocast(device, dtype):
            y = CF.conv2d(x, w, b)
        assert y.dtype == dtype
        check_conv(lambda *t: CF.conv2d(*t), x.to(dtype), w.to(dtype), b.to(dtype), torch.ones_like(y), conv.arguments)
        gradients = torch.autograd.grad(y.float().sum(), (x, w, b))
        assert [g.dtype for g in gradients] == [torch.float32] * 3


@pytest.mark.works_with("`torch.use_deterministic_algorithms`: the same bits in every run, for any number of threads")
def test_same_bits_every_time(device):
    x, w, b = (t.requires_grad_() for t in Conv(16, 6, 14, 14, 16, 5, 5).tensors(device=device))

    def step():
        y = CF.conv2d(x, w, b)
        return [y, *torch.autograd.grad(y.square().sum(), (x, w, b))]

    first = step()
    for _ in range(9):
        assert all(torch.equal(a, b) for a, b in zip(step(), first))


@pytest.mark.works_with("`torch.use_deterministic_algorithms`: the same bits in every run, for any number of threads")
def test_same_bits_for_any_number_of_threads():
    x, w, b = (t.requires_grad_() for t in Conv(16, 6, 14, 14, 16, 5, 5).tensors())

    def step(threads):
        torch.set_num_threads(threads)
        y = CF.conv2d(x, w, b)
        return [y, *torch.autograd.grad(y.square().sum(), (x, w, b))]

    try:
        for one, four in zip(step(1), step(4)):
            assert torch.equal(one, four)
    finally:
        torch.set_num_threads(1)


def test_infinities_and_nan_stay_where_they_belong(device):
    x = torch.zeros(1, 1, 7, 7, device=device)
    x[0, 0, 3, 3] = float("nan")
    x[0, 0, 0, 0] = float("inf")
    w = torch.ones(1, 1, 3, 3, device=device)
    assert torch.equal(CF.conv2d(x, w, padding=1).isnan(), F.conv2d(x, w, padding=1).isnan())
    assert torch.equal(CF.conv2d(x, w, padding=1).isinf(), F.conv2d(x, w, padding=1).isinf())
