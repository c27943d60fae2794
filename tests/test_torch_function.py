"""Tensors that are not plain ones: `__torch_function__` is asked first, subclasses keep their types, and are simulated;
what no kernel takes is refused by a sentence."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.utils._per_sample_grad import call_for_per_sample_grads
from torch.overrides import TorchFunctionMode, resolve_name
from torch.testing._internal.two_tensor import TwoTensor

import convlab
import convlab.functional as CF

works_with = pytest.mark.works_with
SUBCLASSES = "tensor subclasses and modes with `__torch_function__`; inside `convlab.simulate()`, too"


class Image(torch.Tensor):
    pass


class Logged:
    """No tensor at all, but it knows what to do with functions."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return function.__name__, types, args, kwargs or {}


class Calls(TorchFunctionMode):
    def __init__(self):
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__module__ == CF.__name__:
            self.names.append(function.__name__)
        return function(*args, **(kwargs or {}))


WEIGHT, BIAS = torch.randn(4, 2, 3, 2), torch.randn(4)
FUNCTIONS = {
    "conv2d": lambda f, x: f.conv2d(x, WEIGHT, BIAS, 2, (1, 2), groups=1, dilation=(2, 1)),
    "max_pool2d": lambda f, x: f.max_pool2d(x, 3, 2, padding=1, ceil_mode=True, return_indices=True),
    "avg_pool2d": lambda f, x: f.avg_pool2d(x, (2, 3), 1, 1, False, False, 5),
    "leaky_relu": lambda f, x: f.leaky_relu(x, 0.3),
    "relu": lambda f, x: f.relu(x, inplace=False),
}
functions = pytest.mark.parametrize("name", FUNCTIONS)


def batch():
    return torch.randn(3, 2, 9, 8)


def tensors(result):
    return result if isinstance(result, tuple) else (result,)


def layers():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.MaxPool2d(2), nn.Conv2d(4, 3, 1), nn.AvgPool2d(2))


# ---- who decides
# ------------------------------------------------------------------------------------------------------


@works_with(SUBCLASSES)
@functions
def test_subclasses_keep_their_types(name):
    x = batch()
    plain, theirs, ours = (
        tensors(FUNCTIONS[name](f, t)) for f, t in ((F, x), (F, x.as_subclass(Image)), (CF, x.as_subclass(Image)))
    )
    for a, b, c in zip(plain, theirs, ours):
        assert type(b) is type(c) is Image and type(a) is torch.Tensor
        torch.testing.assert_close(c.as_subclass(torch.Tensor), a)


def test_gradients_of_subclasses():
    model, x = convlab.convert(layers()), batch()
    a, b = x.clone().requires_grad_(), x.clone().as_subclass(Image).requires_grad_()
    model(a).square().sum().backward()
    wanted = [p.grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    loss = model(b).square().sum()
    assert type(loss) is Image
    loss.backward()
    torch.testing.assert_close(b.grad.as_subclass(torch.Tensor), a.grad)
    torch.testing.assert_close([p.grad for p in model.parameters()], wanted)


@functions
def test_any_object_with_a_torch_function_decides(name):
    """And is given what it needs to make the call again."""
    x = batch()
    called, types, args, kwargs = FUNCTIONS[name](CF, Logged())
    assert called == name and Logged in types
    again = getattr(CF, name)(*(x if isinstance(a, Logged) else a for a in args), **kwargs)
    torch.testing.assert_close(again, FUNCTIONS[name](CF, x))


def test_each_tensor_of_a_convolution_is_asked():
    x = batch()
    for arguments in ((Logged(), WEIGHT, BIAS), (x, Logged(), BIAS), (x, WEIGHT, Logged())):
        assert CF.conv2d(*arguments, padding="same", algo="direct")[3] == {"algo": "direct"}
    with pytest.raises(TypeError, match=r"conv2d: input must be a torch\.Tensor, got list"):
        CF.conv2d([x], WEIGHT)


def test_a_subclass_that_does_not_know_convlab():
    class Strict(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return NotImplemented

    with pytest.raises(TypeError, match=r"'convlab.functional.relu'.*Strict"):
        CF.relu(batch().as_subclass(Strict))


def test_modes_see_every_call():
    model, x = convlab.convert(layers()), batch()
    expected = model(x)
    with Calls() as calls:
        assert torch.equal(model(x), expected)
    assert calls.names == ["conv2d", "leaky_relu", "max_pool2d", "conv2d", "avg_pool2d"]
    with torch.device("meta"):  # a mode of torch's own
        assert torch.equal(model(x), expected)
    assert all(resolve_name(f) is None for f in (CF.conv2d, CF.relu))  # not torch's, and torch is not told otherwise


def test_compiled_with_subclasses():
    """With AOTAutograd, torch's own layers fail (torch 2.14)."""
    model, x = convlab.convert(layers()), batch()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        y = compiled(x.as_subclass(Image))
    assert type(y) is Image
    torch.testing.assert_close(y.as_subclass(torch.Tensor), model(x))
    torch._dynamo.reset()


# ---- simulated
# --------------------------------------------------------------------------------------------------------


@works_with(SUBCLASSES)
@pytest.mark.parametrize("check", [False, True])
def test_subclasses_are_simulated(check):
    model, x = convlab.convert(layers()), batch()
    expected = model(x)
    launches = []
    for t in (x, x.as_subclass(Image), nn.Parameter(x.as_subclass(Image))):
        with convlab.simulate(check=check) as sim:
            y = model(t)
        y.sum().backward()
        assert type(y) is (torch.Tensor if t is x else Image)
        torch.testing.assert_close(y.as_subclass(torch.Tensor), expected)
        launches.append([launch.kernel for launch in sim.launches])
    assert (
        launches[0] == launches[1] and len(launches[2]) > len(launches[0]) > 10
    )  # the last: dx of the first layer, too


@works_with(SUBCLASSES)
@functions
def test_tensors_that_hold_others_are_simulated(name):
    a, b = batch(), batch()
    x = TwoTensor(a, b)
    if name == "conv2d":

        def call(f, t, weight=WEIGHT):
            return f.conv2d(t, weight, stride=2)

        held = call(CF, x, TwoTensor(WEIGHT, 2 * WEIGHT))
        assert isinstance(held, TwoTensor)
        torch.testing.assert_close(held.b, F.conv2d(b, 2 * WEIGHT, stride=2))
        with convlab.simulate(check=False) as sim:
            held = call(CF, x, TwoTensor(WEIGHT, 2 * WEIGHT))
        torch.testing.assert_close(held.b, F.conv2d(b, 2 * WEIGHT, stride=2))
    else:
        with convlab.simulate(check=False) as sim:
            held = tensors(FUNCTIONS[name](CF, x))[0]
        torch.testing.assert_close(held.b, tensors(FUNCTIONS[name](F, b))[0])
    once = len(sim.launches) // 2
    halves = sim.launches[::2], sim.launches[1::2]  # of operators, some of which launch once
    assert once >= 1 and (halves[0] == halves[1] or sim.launches[:once] == sim.launches[once:])


def test_a_fake_tensor_launches_nothing():
    x, mode = batch(), FakeTensorMode()
    outside = mode.from_tensor(x)
    with convlab.simulate(check=False) as sim:
        assert CF.relu(outside).shape == x.shape
        with mode:
            assert CF.max_pool2d(outside, 2).shape == (3, 2, 4, 4)
        assert not sim.launches
        CF.relu(x)
    assert len(sim.launches) == 1


# ---- what no kernel takes
# ---------------------------------------------------------------------------------------------


STORAGES = {
    "sparse_coo": (lambda t: t.to_sparse(), "to_dense"),
    "sparse_csr": (lambda t: t.flatten(1).to_sparse_csr(), "to_dense"),
    "mkldnn": (lambda t: t.to_mkldnn(), "to_dense"),
    "nested": (lambda t: torch.nested.nested_tensor(list(t)), "unbind"),
    r"quantized \(quint8\)": (lambda t: torch.quantize_per_tensor(t, 0.1, 3, torch.quint8), "dequantize"),
    r"quantized \(qint8\)": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "dequantize"),
    r"quantized \(qint32\)": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint32), "dequantize"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("kind", STORAGES)
def test_storages(kind, simulated):
    """Of any argument, and of every dtype that the storage has."""
    make, instead = STORAGES[kind]
    x = batch()
    calls = [lambda t: CF.relu(t), lambda t: CF.leaky_relu(t, inplace=True)]
    if kind != "sparse_csr":
        calls += [lambda t: CF.max_pool2d(t, 2), lambda t: CF.avg_pool2d(t, 2), lambda t: CF.conv2d(t, WEIGHT)]
    dtypes = [torch.float32] if "quant" in kind or kind == "mkldnn" else [torch.float32, torch.float64, torch.bfloat16]
    for dtype in dtypes:
        t = make(x.to(dtype))
        for call in calls:
            if t.is_nested and call in calls[2:]:
                continue  # its dimensions are refused before
            with pytest.raises(NotImplementedError, match=rf"^\w+: input is {kind}, expected .*: use input\.{instead}"):
                if simulated:
                    with convlab.simulate(check=False):
                        call(t)
                else:
                    call(t)
    if kind in ("sparse_coo", "mkldnn") or "qint8" in kind:
        with pytest.raises(NotImplementedError, match=rf"^conv2d: weight is {kind}, expected .* use weight\.{instead}"):
            CF.conv2d(x, make(WEIGHT))
    if kind == "sparse_coo":
        with pytest.raises(NotImplementedError, match="bias is sparse_coo"):
            CF.conv2d(x, WEIGHT, make(BIAS))
        with pytest.raises(NotImplementedError, match="relu: input is sparse_coo"):
            CF.relu(make(x.long()))


@pytest.fixture
def mesh():
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield dist.device_mesh.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@functions
def test_distributed_tensors(mesh, name):
    from torch.distributed.tensor import Shard, distribute_tensor

    x = batch()
    shared = distribute_tensor(x, mesh, [Shard(0)])
    for requires_grad in (False, True):
        with pytest.raises(NotImplementedError, match=rf"{name}: input is a DTensor.*input\.to_local\(\).*fully_shard"):
            FUNCTIONS[name](CF, shared.detach().requires_grad_(requires_grad))
    with pytest.raises(NotImplementedError, match="conv2d: weight is a DTensor"):
        CF.conv2d(x, distribute_tensor(WEIGHT, mesh, [Shard(0)]))
    torch.testing.assert_close(FUNCTIONS[name](CF, shared.to_local()), FUNCTIONS[name](CF, x))


def test_expanded_weights():
    model = convlab.convert(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU()))
    with pytest.raises(NotImplementedError, match=r"conv2d: .*ExpandedWeights.*torch\.func\.vmap.*convlab\.restore"):
        call_for_per_sample_grads(model)(batch())
    call_for_per_sample_grads(convlab.restore(model))(batch()).sum().backward()
    assert model[0].weight.grad_sample.shape == (3, 4, 2, 3, 3)
