"""Random arguments, layouts, dtypes and shapes to every public function: torch's result, or an error where torch errs;
never a crash."""

import pytest
import torch
from calls import FLOATS, INTEGERS, LAYOUTS, compare, drawn, laid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:.*deterministic")

SHORT, LONG = 450, 10_000  # examples of each of the five functions


def examples(count):
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def mostly(usual, *rare):
    """`usual` nine times in ten."""
    return st.integers(0, 9).flatmap(lambda i: st.one_of(*rare) if i == 0 else usual)


NONSENSE = st.sampled_from(
    [None, True, -1, 0, 1.0, "1", "same", (), (1, 2, 3), (1, None), (1.0, 2), 2**31, 2**63, float("nan"), [[1]]]
)
SIZES = mostly(st.integers(1, 7), st.integers(0, 1))
DTYPES = mostly(
    st.sampled_from(FLOATS[:2]),
    st.sampled_from(FLOATS + INTEGERS),
    st.sampled_from([torch.bool, torch.uint16, torch.float8_e5m2]),
)
GRADIENTS = st.sampled_from([*LAYOUTS, "ones", None])


def numbers(least, most):
    """An int, or two, in the forms that people write."""
    one = st.integers(least, most)
    return mostly(
        st.one_of(one, st.tuples(one, one), st.lists(one, min_size=1, max_size=2), st.tuples(one).map(torch.Size)),
        NONSENSE,
    )


def images(channels):
    """Shapes [N, C, H, W], sometimes [C, H, W], seldom others."""
    return mostly(
        st.tuples(st.integers(0, 3), channels, SIZES, SIZES),
        st.tuples(channels, SIZES, SIZES),
        st.lists(SIZES, max_size=5).map(tuple),
    )


def tensors(shapes):
    return st.builds(
        lambda shape, dtype, layout: laid(drawn(shape).to(dtype), layout),
        shapes,
        DTYPES,
        st.sampled_from(list(LAYOUTS)),
    )


@st.composite
def convolutions(draw):
    """Tensors that mostly fit together, and arguments."""
    groups = draw(mostly(st.sampled_from([1, 1, 2, 3]), st.integers(-1, 4)))
    channels = draw(mostly(st.integers(1, 4), st.just(0)))
    x = draw(tensors(images(mostly(st.just(channels * max(groups, 1)), st.integers(0, 5)))))
    k = max(groups, 1) * draw(mostly(st.integers(1, 4), st.just(0)))
    filters = draw(
        mostly(
            st.tuples(st.just(k), st.just(channels), st.integers(1, 4), st.integers(1, 4)),
            st.lists(st.integers(0, 4), max_size=5).map(tuple),
        )
    )
    dtype = draw(mostly(st.just(x.dtype), DTYPES))
    w = laid(drawn(filters).to(dtype), draw(st.sampled_from(list(LAYOUTS))))
    b = draw(mostly(st.one_of(st.none(), st.just(drawn((k,)).to(dtype))), st.just(drawn((k + 1,)).to(dtype))))
    stride = draw(st.one_of(st.just(1), numbers(1, 4)))
    padding = draw(st.one_of(numbers(0, 4), st.sampled_from(["same", "valid"])))
    return (x, w, b), (stride, padding, draw(numbers(1, 3)), groups)


def _runs_away(arguments):
    """What torch's own kernels do not survive: it multiplies a dilation of 2^63 into nonsense, and allocates what came
    out."""
    return any(
        isinstance(v, int) and v >= 2**31 for a in arguments for v in (a if isinstance(a, (tuple, list)) else (a,))
    )


def conv2d(call, grad_layout):
    operands, arguments = call
    if not _runs_away(arguments):
        compare(
            "conv2d",
            *operands,
            arguments=arguments,
            grad_layout=grad_layout,
            classes=False,
            strides=all(t is None or 0 not in t.stride() for t in operands),
        )


def max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, grad_layout):
    arguments = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    if not _runs_away(arguments) and not _unseen(x, *arguments[:5]):
        compare("max_pool2d", x, arguments=arguments, grad_layout=grad_layout, classes=False)


def avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor, grad_layout):
    arguments = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor)
    if not _runs_away(arguments):
        compare("avg_pool2d", x, arguments=arguments, grad_layout=grad_layout, classes=False)


def _unseen(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Whether a window's taps may all miss x: torch's backward then writes outside its tensors, and its indices are
    anything."""
    try:
        pairs = [
            (v, v) if isinstance(v, int) else tuple(v) * (2 // len(v))
            for v in (kernel_size, kernel_size if stride in (None, (), []) else stride, padding, dilation)
        ]
        for size, kernel, step, pad, dilation in zip(x.shape[-2:], *pairs):
            starts = range(-pad, size + pad - dilation * (kernel - 1) + step - 1, step)
            if any(all(not 0 <= start + r * dilation < size for r in range(kernel)) for start in starts):
                return True
    except (TypeError, ValueError, ZeroDivisionError):
        pass  # nonsense, which both refuse
    return False


def relu(x, inplace, grad_layout):
    compare(
        "relu",
        x,
        inplace=inplace,
        grad_layout=None if inplace else grad_layout,
        classes=False,
        strides=0 not in x.stride(),
    )


def leaky_relu(x, slope, inplace, grad_layout):
    compare(
        "leaky_relu",
        x,
        arguments=(slope, inplace),
        grad_layout=None if inplace else grad_layout,
        classes=False,
        strides=0 not in x.stride(),
    )


FLAGS = mostly(st.booleans(), NONSENSE)
POOLED, ANY = tensors(images(st.integers(0, 4))), tensors(st.lists(SIZES, max_size=5).map(tuple))
STRIDES = st.one_of(st.none(), numbers(1, 4))
CALLS = {
    "conv2d": (conv2d, (convolutions(), GRADIENTS)),
    "max_pool2d": (
        max_pool2d,
        (POOLED, numbers(1, 4), STRIDES, numbers(0, 2), numbers(1, 3), FLAGS, st.booleans(), GRADIENTS),
    ),
    "avg_pool2d": (
        avg_pool2d,
        (
            POOLED,
            numbers(1, 4),
            STRIDES,
            numbers(0, 2),
            FLAGS,
            FLAGS,
            st.one_of(st.none(), st.integers(-3, 5), NONSENSE),
            GRADIENTS,
        ),
    ),
    "relu": (relu, (ANY, st.booleans(), GRADIENTS)),
    "leaky_relu": (leaky_relu, (ANY, mostly(st.floats(width=32), NONSENSE), st.booleans(), GRADIENTS)),
}


@pytest.mark.parametrize("name", CALLS)
def test_random_arguments(name):
    call, strategies = CALLS[name]
    examples(SHORT)(given(st.tuples(*strategies))(lambda drawn: call(*drawn)))()


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_many_random_arguments(name):
    call, strategies = CALLS[name]
    examples(LONG)(given(st.tuples(*strategies))(lambda drawn: call(*drawn)))()
