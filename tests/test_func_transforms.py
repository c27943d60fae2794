"""Every public function under torch.func's transforms and in forward mode, in the forms that people write: derivatives
and batches are torch's, in float64. test_compositions.py has them in any order, over networks."""

import itertools
import random

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    functionalize,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

import convlab
import convlab.functional as CF
from convlab import autograd, ops

F = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore:.*deterministic.*", "ignore:.*torch.jit.*")

X, W, B = (1, 2, 4, 5), (2, 1, 2, 3), (2,)


def with_indices(f, x):
    y, indices = f.max_pool2d(x, 2, 1, return_indices=True)
    return y * (1 + indices)  # wrong indices show in y and in its derivatives


FUNCTIONS = {  # what is called in torch.nn.functional or in convlab.functional, and the shapes of its tensors
    "conv2d": (lambda f: lambda x, w, b: f.conv2d(x, w, b, padding=1, groups=2), (X, W, B)),
    "conv2d without bias": (lambda f: lambda x, w: f.conv2d(x, w, stride=(2, 1), groups=2), (X, W)),
    "conv2d of an image": (lambda f: lambda x, w: f.conv2d(x[0], w, dilation=(2, 1), groups=2), (X, W)),
    "max_pool2d": (lambda f: lambda x: f.max_pool2d(x, 2), (X,)),
    "max_pool2d with indices": (lambda f: lambda x: with_indices(f, x), (X,)),
    "avg_pool2d": (lambda f: lambda x: f.avg_pool2d(x, 2, 1, 1), (X,)),
    "leaky_relu": (lambda f: lambda x: f.leaky_relu(x, 0.2), (X,)),
    "leaky_relu in place": (lambda f: lambda x: f.leaky_relu(x * 1, 0.2, inplace=True), (X,)),
    "relu": (lambda f: lambda x: f.relu(x), (X,)),
    "relu in place": (lambda f: lambda x: f.relu(x * 1, inplace=True), (X,)),
}


def tensors_of(name):
    return [torch.randn(shape, dtype=torch.float64) for shape in FUNCTIONS[name][1]]


def close(ours, torchs, what):
    torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-9, msg=lambda text: f"{what}: {text}")


# ---- batches --------------------------------------------------------------------------------------------------------

PAIR = autograd.ConvArguments((2, 1, 1, 0, 1, 0, 1, 1, 2), (0, 0, 0))  # stride (2, 1), padding (1, 0), two groups
NAMED = PAIR._replace(algo=(next(a.number for a in convlab.algorithms() if a.name == "direct"),) * 3)
POOL = (2, 2, 1, 2, 1, 0, 1, 1)
AVERAGE = autograd.AvgPoolArguments((2, 2, 2, 1, 1, 0, 1, 1), True, False, 0)
x, w, b, dy = (2, 4, 5, 6), (6, 2, 2, 3), (6,), (2, 6, 3, 4)
pooled, averaged = (2, 4, 6, 3), (2, 4, 3, 5)
BATCHED = {  # a Function, the shapes of its tensors (as types: of what else than float64 they are), its other arguments
    **{
        f"{function.__name__} {named}": (function, shapes, (*others, arguments))
        for named, arguments in {"auto": PAIR, "direct": NAMED}.items()
        for function, shapes, others in (
            (autograd.Conv2dForward, (x, w, b), ()),
            (autograd.Conv2dDgrad, (dy, w), ((5, 6), False)),
            (autograd.Conv2dWgrad, (dy, x), ((2, 3), True, True)),
        )
    },
    **{
        f"Conv2dBlock {activation} {named}": (
            autograd.Conv2dBlock,
            (x, w, b),
            (autograd.BlockArguments(*arguments, (ops.ACTIVATIONS[activation], 2, 1), 0.2),),
        )
        for named, arguments, activation in (("auto", PAIR, "leaky_relu"), ("direct", NAMED, "relu6"))
    },
    "Conv2dBiasGrad": (autograd.Conv2dBiasGrad, (dy,), ()),
    "MaxPool2d": (autograd.MaxPool2d, (x,), (False, POOL)),
    "MaxPool2dBackward": (autograd.MaxPool2dBackward, (pooled, (torch.uint8, *pooled)), ((5, 6), False, POOL)),
    "MaxPool2dGather": (autograd.MaxPool2dGather, (x, (torch.uint8, *pooled)), (POOL,)),
    "MaxPool2dIndices": (autograd.MaxPool2dIndices, ((torch.uint8, *pooled),), ((5, 6), False, POOL)),
    "AvgPool2d": (autograd.AvgPool2d, (x,), (AVERAGE,)),
    "AvgPool2dBackward": (
        autograd.AvgPool2dBackward,
        (averaged,),
        ((5, 6), False, AVERAGE),
    ),
    "LeakyReLU": (autograd.LeakyReLU, (x,), (0.2, False, False)),
    "LeakyReLUBackward": (autograd.LeakyReLUBackward, (x, (torch.bool, *x)), (0.2, False)),
    "ReLU": (autograd.ReLU, (x,), ()),
    "ReLUBackward": (autograd.ReLUBackward, (x, x), ()),
}


def test_every_function_has_both_rules():
    """Of its own: a derivative that is linear only by default would be wrong in silence."""
    assert {function for function, *_ in BATCHED.values()} <= set(autograd.PRIMITIVES)
    assert all({"batch", "tangent"} <= vars(function).keys() for function in autograd.PRIMITIVES)


def tensor(shape):
    if not isinstance(shape[0], torch.dtype):
        return torch.randn(shape, dtype=torch.float64)
    return torch.randint(2 if shape[0] is torch.bool else 4, shape[1:], dtype=shape[0])


class Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the calls of convlab's operators."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.namespace == "convlab"
        return function(*args, **(kwargs or {}))


@pytest.mark.works_with("`vmap` over any of a function's tensors: one call of a kernel for all of the batch")
@pytest.mark.filterwarnings("error:.*performance drop.*")
@pytest.mark.parametrize("name", BATCHED)
def test_batches(name):
    """vmap is the loop, whatever has a batch and wherever; in one call, but for an algorithm that was named."""
    function, shapes, others = BATCHED[name]
    size = 3
    for which in itertools.product([False, True], repeat=len(shapes)):
        if any(which):
            dims = [random.choice([0, 1, -1]) if batched else None for batched in which]
            many = [[tensor(shape) for _ in range(size if batched else 1)] for shape, batched in zip(shapes, which)]
            args = [t[0] if d is None else torch.stack(t, d) for t, d in zip(many, dims)]
            with Calls() as calls:
                ours = vmap(lambda *tensors: autograd.apply(function, *tensors, *others), tuple(dims))(*args)
            one_by_one = [autograd.apply(function, *(t[i % len(t)] for t in many), *others) for i in range(size)]
            if not isinstance(ours, tuple):
                ours, one_by_one = (ours,), [(y,) for y in one_by_one]
            for y, *expected in zip(ours, *one_by_one):
                close(y, torch.stack(expected), f"{name}, batches {dims}")
            assert calls.count == 1 or name.endswith("direct"), dims


def test_no_batch_takes_long_ways():
    """Per-sample gradients of a convolution are three calls, for all of the samples."""
    x, w, b = (torch.randn(shape) for shape in ((5, 3, 2, 6, 6), (4, 2, 3, 3), (4,)))
    with Calls() as calls:
        vmap(grad(lambda x, w, b: CF.conv2d(x, w, b).sin().sum(), (0, 1, 2)), (0, None, None))(x, w, b)
    assert calls.count == 3


# ---- forward mode ---------------------------------------------------------------------------------------------------

pushed = lambda f, *tensors: jvp(f, tensors, tuple(t.cos() for t in tensors))[1]  # noqa: E731


def dual(f, *tensors):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(*(forward_ad.make_dual(t, t.cos()) for t in tensors))).tangent


def both_modes(f, *tensors):
    """The gradient of a tangent, by autograd"""
    leaves = [t.clone().requires_grad_() for t in tensors]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, t.cos()) for t in leaves]
        y, ty = forward_ad.unpack_dual(f(*duals))
    return joined(torch.autograd.grad((y.sin() * ty).sum(), leaves))


def joined(tensors):
    return torch.cat([t.flatten() for t in tensors])


def scalar(f):
    return lambda *a: f(*a).flatten()[:4].sin().sum()


def everything(transform):
    return lambda f, *a: joined(pytree.tree_leaves(transform(f, tuple(range(len(a))))(*a)))


FORWARD = {
    "jvp": pushed,
    "jvp of jvp": lambda f, *a: pushed(lambda *a: pushed(f, *a), *a),
    "jvp of jvp of jvp": lambda f, *a: pushed(lambda *a: pushed(lambda *a: pushed(f, *a), *a), *a),
    "jacfwd": everything(jacfwd),
    "hessian": lambda f, *a: everything(hessian)(scalar(f), *a),
    "jacfwd of jacfwd": lambda f, *a: everything(lambda f, n: jacfwd(jacfwd(f, n), n))(scalar(f), *a),
    "jacrev of jacfwd": lambda f, *a: everything(lambda f, n: jacrev(jacfwd(f, n), n))(scalar(f), *a),
    "vmap of jvp": lambda f, *a: vmap(lambda *a: pushed(f, *a))(*(torch.stack([t, t.sin()]) for t in a)),
    "jvp of vmap": lambda f, *a: pushed(vmap(f), *(torch.stack([t, t.sin()]) for t in a)),
    "jvp of functionalize": lambda f, *a: pushed(functionalize(f), *a),
    "forward_ad": dual,
    "forward_ad of vmap": lambda f, *a: dual(vmap(f), *(torch.stack([t, t.sin()]) for t in a)),
    "forward_ad of grad": lambda f, *a: dual(grad(scalar(f)), *a),
    "autograd of forward_ad": both_modes,
    "torch.autograd.functional": lambda f, *a: torch.autograd.functional.jacobian(
        lambda x: f(x, *a[1:]), a[0], strategy="forward-mode", vectorize=True
    ),
}


@pytest.mark.works_with("forward-mode derivatives: `jvp`, `jacfwd`, `hessian`, `torch.autograd.forward_ad`, nested too")
@pytest.mark.parametrize("form", FORWARD)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode(name, form):
    tensors = tensors_of(name)
    try:
        torchs = FORWARD[form](FUNCTIONS[name][0](F), *tensors)
    except RuntimeError:  # vectorized, and over a tangent that is zero
        assert name.startswith("max_pool2d") or name.endswith("in place")
        pytest.skip("torch's own cannot do it")
    assert torchs.any()
    close(FORWARD[form](FUNCTIONS[name][0](CF), *tensors), torchs, f"{form} of {name}")


@pytest.mark.parametrize("name", ["conv2d", "max_pool2d with indices"])
def test_linearize(name):
    """It traces a jvp, and folds what is constant."""
    tensors = tensors_of(name)
    ours, torchs = (torch.func.linearize(FUNCTIONS[name][0](f), *tensors)[1] for f in (CF, F))
    close(ours(*tensors), torchs(*tensors), f"linearize of {name}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradcheck_in_every_mode(name):
    """By differences: no other implementation's word for it."""
    tensors = [t.requires_grad_() for t in tensors_of(name)]
    f = FUNCTIONS[name][0](CF)
    modes = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(f, tensors, fast_mode=True, **modes)
    assert torch.autograd.gradgradcheck(f, tensors, fast_mode=True, check_fwd_over_rev=True, check_rev_over_rev=True)


def test_no_tangent_is_not_a_zero_tangent():
    """What has no tangent stays without; forward mode that is switched off gives none."""
    x = torch.randn(1, 1, 3, 3)
    with forward_ad.dual_level():
        tangents = [
            forward_ad.unpack_dual(f(CF)(x)).tangent for f in (lambda f: f.relu, lambda f: lambda x: f.avg_pool2d(x, 2))
        ]
        with forward_ad._set_fwd_grad_enabled(False):
            tangents.append(forward_ad.unpack_dual(CF.relu(forward_ad.make_dual(x, x))).tangent)
    assert tangents == [None] * 3


# ---- the forms people write -----------------------------------------------------------------------------------------


@pytest.mark.works_with("an ensemble: `vmap` over stacked weights, trained by `.backward()`")
def test_ensemble():
    def gradients(layers):
        torch.manual_seed(3)
        models = [torch.nn.Sequential(layers.Conv2d(2, 3, 3), layers.ReLU(), layers.AvgPool2d(2)) for _ in range(3)]
        parameters, _ = stack_module_state([m.double() for m in models])
        vmap(lambda p: functional_call(models[0], p, (x,)))(parameters).square().sum().backward()
        return [p.grad for p in parameters.values()]

    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    close(gradients(convlab), gradients(torch.nn), "an ensemble")


def test_image_by_image():
    """A network that is called through vmap: every parameter gets its gradient."""

    def gradients(layers):
        torch.manual_seed(3)
        model = torch.nn.Sequential(
            layers.Conv2d(2, 3, 3), layers.LeakyReLU(), layers.MaxPool2d(2), layers.Conv2d(3, 2, 2), layers.ReLU()
        ).double()
        vmap(lambda image: model(image[None])[0])(x).square().sum().backward()
        return [p.grad for p in model.parameters()]

    x = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    close(gradients(convlab), gradients(torch.nn), "a network through vmap")


# ---- modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_grad_inside_and_outside(name):
    tensors = tensors_of(name)
    first = lambda f: lambda x: f(x, *tensors[1:]).sin().sum()  # noqa: E731

    def inside(f):
        def g(x):
            with torch.no_grad():
                y = first(f)(x)
            return y + first(f)(2 * x)

        return grad(lambda x: grad(g)(x).square().sum())(tensors[0])

    def outside(f):
        leaf = tensors[0].clone().requires_grad_()
        with torch.no_grad():
            y = vmap(first(f))(torch.stack([leaf, leaf * 2]))
            return torch.cat([y, grad(first(f))(leaf).flatten()])

    def inference(f):
        with torch.inference_mode():
            return vmap(first(f))(torch.stack([tensors[0], tensors[0] * 2]))

    def checkpointed(f):
        leaf = tensors[0].clone().requires_grad_()
        y = checkpoint(vmap(first(f)), torch.stack([leaf, leaf * 2]), use_reentrant=False)
        return torch.autograd.grad(y.sum(), leaf)[0]

    for form in (inside, outside, inference, checkpointed):
        ours, torchs = (form(FUNCTIONS[name][0](f)) for f in (CF, F))
        close(ours, torchs, f"{form.__name__}, {name}")
        assert ours.requires_grad == torchs.requires_grad


def test_what_a_finished_vjp_still_holds():
    """The backward runs when the transform is over; h, saved inside, still hides that x requires a gradient."""
    x, a = (torch.randn(1, 1, 4, 4, dtype=torch.float64) for _ in range(2))

    def through(f):
        leaf = x.clone().requires_grad_()
        y, pull = vjp(lambda a: f.conv2d(a, leaf.exp()[..., :2, :2]), a)
        (da,) = pull(torch.ones_like(y))
        return torch.autograd.grad(da.square().sum(), leaf)[0]

    close(through(CF), through(F), "a derivative of vjp's result")


# ---- inside torch.compile -------------------------------------------------------------------------------------------

FORMS = {
    "jvp": lambda f: lambda x: jvp(f, (x,), (x.cos(),))[1],
    "jacfwd": lambda f: jacfwd(lambda x: f(x).flatten()[:3].sin()),
    "jvp of jvp": lambda f: lambda x: pushed(lambda x: pushed(f, x), x),
    "hessian": lambda f: hessian(lambda x: f(x).flatten()[:3].sin().sum()),
    "grad": lambda f: grad(lambda x: f(x).sin().sum()),
    "grad of grad": lambda f: grad(lambda x: grad(lambda x: f(x).sin().sum())(x).square().sum()),
    "vmap": lambda f: lambda x: vmap(f)(torch.stack([x, x.cos()])),
    "vmap of grad": lambda f: lambda x: vmap(grad(lambda x: f(x).sin().sum()))(torch.stack([x, x.cos()])),
    "grad of vmap": lambda f: grad(lambda x: vmap(f)(torch.stack([x, x.cos()])).sin().sum()),
}


def check_compiled(name, form):
    x, *others = tensors_of(name)

    def run(functions, compiled):
        f = FORMS[form](lambda x: FUNCTIONS[name][0](functions)(x, *others))
        leaf = x.clone().requires_grad_("grad" not in form)  # .backward() through it, too
        try:
            y = (torch.compile(f, backend="aot_eager", fullgraph=True) if compiled else f)(leaf)
        finally:
            torch._dynamo.reset()
        return [y.detach(), *(torch.autograd.grad(y.sin().sum(), leaf) if leaf.requires_grad else ())]

    close(run(CF, True), run(F, False), f"{form}, {name}, compiled")


@pytest.mark.works_with("`torch.compile` around `torch.func`'s transforms, forward mode too, and inside of them")
@pytest.mark.parametrize(
    "name, form",
    [("conv2d", "grad of grad"), ("max_pool2d", "vmap of grad"), ("conv2d", "jvp")],
)
def test_compiled(name, form):
    check_compiled(name, form)


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_form_compiled(name, form):
    check_compiled(name, form)
