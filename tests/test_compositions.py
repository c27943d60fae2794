"""Random compositions of torch.func's transforms, checkpointing and torch.compile over random small networks give the
same float64 results as torch's own functions, wherever those work."""

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.func import functionalize, grad, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

import convlab.functional as CF

F = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns about its own functions; our errors fail `check`

SHORT, LONG = 500, 20_000  # compositions that are not compiled
COMPILED = {SHORT: 4, LONG: 200}  # and those that have torch.compile somewhere among their transforms


# ---- networks -------------------------------------------------------------------------------------------------------


@st.composite
def networks(draw):
    """One to three layers, as network(f, tensors) where f is torch's functions or convlab's; and the tensors' shapes."""
    y = torch.empty(
        draw(st.integers(1, 2)), draw(st.integers(1, 2)), *draw(st.tuples(*[st.integers(3, 5)] * 2)), device="meta"
    )
    shapes, layers = [tuple(y.shape)], []
    for _ in range(draw(st.integers(1, 3))):
        layer, parameters = draw(st.sampled_from([convolution, convolution, *OTHERS]))(draw, y.shape, len(shapes))
        shapes += parameters
        layers.append(layer)
        y = layer(F, y, [torch.empty(shape, device="meta") for shape in shapes])

    def network(f, tensors):
        y = tensors[0]
        for layer in layers:
            y = layer(f, y, tensors)
        return y

    return network, shapes


def convolution(draw, shape, index):
    """Its parameters are the tensors from `index` on."""
    groups = draw(st.sampled_from([g for g in (1, 2) if shape[1] % g == 0]))
    k, padding = groups * draw(st.integers(1, 2)), draw(st.sampled_from([0, 1, "same", (0, 1)]))
    r, s = (draw(st.integers(1, min(2, size))) for size in shape[2:])
    stride, bias = 1 if padding == "same" else draw(st.integers(1, 2)), draw(st.booleans())
    algo = draw(st.sampled_from([None, None, None, "direct"]))

    def layer(f, y, tensors):
        w, b = tensors[index], tensors[index + 1] if bias else None
        named = {"algo": algo} if f is CF and algo else {}
        return f.conv2d(y, w, b, stride, padding, 1, groups, **named)

    return layer, [(k, shape[1] // groups, r, s), *([(k,)] if bias else [])]


def max_pooling(draw, shape, _):
    kernel, stride = (tuple(draw(st.integers(1, min(2, size))) for size in shape[2:]) for _ in range(2))
    ceil_mode, with_indices = draw(st.booleans()), draw(st.booleans())

    def layer(f, y, _):
        y = f.max_pool2d(y, kernel, stride, ceil_mode=ceil_mode, return_indices=with_indices)
        return y[0] * (1 + y[1] / 9) if with_indices else y  # wrong indices show in y and in its derivatives

    return layer, []


def average_pooling(draw, shape, _):
    kernel, stride = (tuple(draw(st.integers(1, min(2, size))) for size in shape[2:]) for _ in range(2))
    ceil_mode, divisor = draw(st.booleans()), draw(st.sampled_from([None, 3]))
    return lambda f, y, _: f.avg_pool2d(y, kernel, stride, 0, ceil_mode, True, divisor), []


def activation(draw, *_):
    inplace, slope = draw(st.booleans()), draw(st.sampled_from([None, 0.2]))

    def layer(f, y, _):
        y = y.sin() + 0.1 if inplace else y
        return f.relu(y, inplace) if slope is None else f.leaky_relu(y, slope, inplace)

    return layer, []


OTHERS = [max_pooling, average_pooling, activation, activation]


# ---- transforms -----------------------------------------------------------------------------------------------------
# Each makes a function of the same tensors, with one tensor for a result, so that all of them nest.


def joined(tensors):
    return torch.cat([t.flatten() for t in tensors])


def squashed(y):
    """Nonlinear, and small where y is large, so that the rounding of large values does not show"""
    return y / (1 + y.square())


def some_of(draw, n):
    return draw(st.sets(st.integers(0, n - 1), min_size=1).map(sorted).map(tuple))


def grads(draw, n):
    wanted = some_of(draw, n)
    return f"grad{wanted}", lambda f: lambda *a: joined(grad(lambda *a: squashed(f(*a)).sum(), wanted)(*a))


def pulls(draw, n):
    def transform(f):
        def g(*a):
            y, pull = vjp(f, *a)
            return joined(pull(squashed(y)))

        return g

    return "vjp", transform


def pushes(draw, n):
    wanted = some_of(draw, n)

    def transform(f):
        def g(*a):
            def of_wanted(*primals):
                it = iter(primals)
                return f(*(next(it) if i in wanted else t for i, t in enumerate(a)))

            primals = tuple(a[i] for i in wanted)
            y, ty = jvp(of_wanted, primals, tuple(t.cos() for t in primals))
            return squashed(y) + ty

        return g

    return f"jvp{wanted}", transform


def jacobians(draw, n):
    wanted, by = some_of(draw, n), draw(st.sampled_from([jacrev, jacfwd, jacfwd]))
    return (
        f"{by.__name__}{wanted}",
        lambda f: lambda *a: joined(by(lambda *a: squashed(f(*a).flatten()[:3]), wanted)(*a)),
    )


def batches(draw, n):
    wanted, out = some_of(draw, n), draw(st.sampled_from([0, -1]))
    in_dims = tuple(draw(st.sampled_from([0, 1, -1])) if i in wanted else None for i in range(n))
    options = {"randomness": draw(st.sampled_from(["error", "same", "different"]))}
    if draw(st.integers(0, 3)) == 0:
        options["chunk_size"] = 1

    def transform(f):
        def g(*a):
            batched = (t if d is None else torch.stack([t, t.cos() - t / 2], d) for t, d in zip(a, in_dims))
            return vmap(f, in_dims, out, **options)(*batched)

        return g

    return f"vmap({in_dims}, {out}, {options})", transform


def functionalized(draw, n):
    remove = draw(st.sampled_from(["mutations", "mutations_and_views"]))
    return f"functionalize({remove})", lambda f: functionalize(f, remove=remove)


def checkpointed(draw, n):
    return "checkpoint", lambda f: lambda *a: checkpoint(f, *a, use_reentrant=False)


def compiled(draw, n):
    return "compile", lambda f: torch.compile(f, backend="aot_eager")


def backwards(draw, n):
    """torch.autograd.grad, around all the other transforms"""
    wanted = some_of(draw, n)

    def transform(f):
        def g(*a):
            leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(a)]
            y = f(*leaves)
            asked = [t for t in leaves if t.requires_grad]
            return (
                joined(torch.autograd.grad(squashed(y).sum(), asked, materialize_grads=True)) if y.requires_grad else y
            )

        return g

    return f"autograd{wanted}", transform


TRANSFORMS = [grads, pulls, pushes, jacobians, batches, functionalized, checkpointed]


@st.composite
def compositions(draw, compiling):
    network, shapes = draw(networks())
    kinds = draw(st.lists(st.sampled_from(TRANSFORMS), min_size=0 if compiling else 1, max_size=2 if compiling else 3))
    if compiling:
        kinds.insert(draw(st.integers(0, len(kinds))), compiled)
    if draw(st.booleans()):
        kinds.append(backwards)
    return network, shapes, [kind(draw, len(shapes)) for kind in kinds], draw(st.integers(0, 2**31))


def values(f, network, transforms, tensors):
    g = lambda *a: network(f, a)  # noqa: E731
    for _, transform in transforms:
        g = transform(g)
    try:
        return g(*tensors).detach()
    finally:
        if any(name == "compile" for name, _ in transforms):
            torch._dynamo.reset()


def check(composition, outcomes):
    network, shapes, transforms, seed = composition
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    try:
        expected = values(F, network, transforms, tensors)
    except RuntimeError as error:
        outcomes[f"torch: {type(error).__name__}"] += 1
        return
    what = " of ".join(name for name, _ in reversed(transforms))
    try:
        ours = values(CF, network, transforms, tensors)
    except Exception as error:
        if "functionalize" in what and "aten::copy is not implemented" in str(error):
            outcomes["in place"] += 1  # functionalize with forward mode: torch's own functions mostly raise it too
            return
        raise AssertionError(f"{what}, of {shapes}") from error
    scale = expected.abs().max().item() if expected.numel() else 1
    torch.testing.assert_close(
        ours, expected, rtol=1e-8, atol=1e-10 * max(1, scale), msg=lambda text: f"{what}, of {shapes}: {text}"
    )
    outcomes["compared"] += 1


def check_many(count, compiling=False):
    outcomes = Counter()
    run = given(compositions(compiling))(lambda composition: check(composition, outcomes))
    settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )(run)()
    assert outcomes["compared"] > sum(outcomes.values()) / 2 and outcomes["in place"] <= count / 200, outcomes
    return outcomes


@pytest.mark.works_with(
    "`torch.func`: `grad`, `vjp`, `jvp`, `jacrev`, `jacfwd`, `vmap`, `functionalize`, in any order and nesting"
)
def test_compositions():
    check_many(SHORT)


@pytest.mark.works_with("`torch.compile` around `torch.func`'s transforms, forward mode too, and inside of them")
def test_compiled_compositions():
    check_many(COMPILED[SHORT], compiling=True)


@pytest.mark.long
def test_many_compositions():
    check_many(LONG)


@pytest.mark.long
def test_many_compiled_compositions():
    check_many(COMPILED[LONG], compiling=True)
