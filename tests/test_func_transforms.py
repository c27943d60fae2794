"""Derivatives through torch.func's transforms, in any order and nesting, are torch's: in float64, over every public
function and all of its tensors. None is ever silently zero."""

import random

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap
from torch.utils.checkpoint import checkpoint

import convlab
import convlab.functional as CF

F = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore:.*performance drop.*", "ignore:.*deterministic.*")

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


# ---- nestings, drawn at random --------------------------------------------------------------------------------------
# A transform makes a function of the same tensors, with one tensor for a result, so that all of them nest.


def joined(tensors):
    return torch.cat([t.flatten() for t in tensors])


def some_of(draw, n):
    return tuple(sorted(draw.sample(range(n), draw.randint(1, n))))


def grads(draw, n):
    wanted = some_of(draw, n)
    return f"grad{wanted}", lambda f: lambda *a: joined(grad(lambda *a: f(*a).sin().sum(), wanted)(*a))


def pulls(draw, n):
    def transform(f):
        def g(*a):
            y, pull = vjp(f, *a)
            return joined(pull(y.cos()))

        return g

    return "vjp", transform


def jacobians(draw, n):
    wanted = some_of(draw, n)
    return f"jacrev{wanted}", lambda f: lambda *a: joined(jacrev(lambda *a: f(*a).flatten()[:3].sin(), wanted)(*a))


def batches(draw, n):
    wanted, out = some_of(draw, n), draw.choice([0, -1])
    in_dims = tuple(draw.choice([0, 1, -1]) if i in wanted else None for i in range(n))
    randomness = draw.choice(["error", "same", "different"])

    def transform(f):
        def g(*a):
            batched = (t if d is None else torch.stack([t, t.cos() - t / 2], d) for t, d in zip(a, in_dims))
            return vmap(f, in_dims, out, randomness=randomness)(*batched)

        return g

    return f"vmap({in_dims}, {out}, {randomness})", transform


def backwards(draw, n):
    """autograd's own, outside of everything"""
    wanted = some_of(draw, n)

    def transform(f):
        def g(*a):
            leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(a)]
            y = f(*leaves)
            asked = [t for t in leaves if t.requires_grad]
            return joined(torch.autograd.grad(y.sin().sum(), asked)) if y.requires_grad else y

        return g

    return f"autograd{wanted}", transform


def nesting(seed, n):
    """Up to three transforms, the innermost first."""
    draw = random.Random(seed)
    drawn = [draw.choice([grads, pulls, jacobians, batches, batches])(draw, n) for _ in range(draw.randint(1, 3))]
    return [*drawn, *([backwards(draw, n)] if draw.random() < 0.4 else [])]


def check_nesting(name, seed):
    ours, torchs = (FUNCTIONS[name][0](f) for f in (CF, F))
    tensors = tensors_of(name)
    names = []
    for transform_name, transform in nesting(f"{name} {seed}", len(tensors)):
        ours, torchs = transform(ours), transform(torchs)
        names.insert(0, transform_name)
    close(ours(*tensors), torchs(*tensors), f"{' of '.join(names)} of {name}")


@pytest.mark.works_with("`torch.func`: `grad`, `vjp`, `jacrev`, `vmap`, in any order and nesting")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nestings(name):
    for seed in range(12):
        check_nesting(name, seed)


@pytest.mark.long
@pytest.mark.parametrize("name", FUNCTIONS)
def test_many_nestings(name):
    for seed in range(12, 300):
        check_nesting(name, seed)


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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode_is_never_silently_zero(name):
    tensors = tensors_of(name)
    f = lambda x: FUNCTIONS[name][0](CF)(x, *tensors[1:]).sin().sum()  # noqa: E731
    x, batch = tensors[0], torch.stack([tensors[0]] * 2)

    def dual(f, x):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(x, torch.ones_like(x)))).tangent

    forms = [
        lambda: jvp(f, (x,), (torch.ones_like(x),)),
        lambda: jvp(vmap(f), (batch,), (torch.ones_like(batch),)),
        lambda: vmap(lambda x: jvp(f, (x,), (torch.ones_like(x),)))(batch),
        lambda: jacfwd(f)(x),
        lambda: hessian(f)(x),
        lambda: jvp(grad(f), (x,), (torch.ones_like(x),)),
        lambda: dual(f, x),
        lambda: dual(vmap(f), batch),
        lambda: dual(grad(f), x),
    ]
    for form in forms:
        with pytest.raises(NotImplementedError, match="jvp"):
            form()


# ---- inside torch.compile -------------------------------------------------------------------------------------------

FORMS = {
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


@pytest.mark.works_with("`torch.func` inside `torch.compile`")
@pytest.mark.parametrize(
    "name, form",
    [("conv2d", "grad of grad"), ("conv2d", "grad of vmap"), ("relu", "vmap"), ("max_pool2d", "vmap of grad")],
)
def test_compiled(name, form):
    check_compiled(name, form)


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_form_compiled(name, form):
    check_compiled(name, form)
