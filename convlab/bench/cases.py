"""Problems become cases. Which problems: the zoo's, or whatever convolutions somebody has, from a command line or a
file."""

import dataclasses
import math
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .. import functional as CF
from .. import layers, ops
from .._algorithms import PASSES, Conv2dProblem, algorithms, as_switched, numbers_of, with_each_tile
from ..arguments import is_channels_last, pooling_window
from .case import LAYOUTS, OURS, PRECISIONS, Case, Way, dtype_of
from .networks import GPU_NETWORKS, NETWORKS, Network, step

LADDER = ("lenet-c1", "lenet-c3", "cifar-32-64", "resnet-128", "resnet-stem", "depthwise-128-56")
SWEPT = ("cifar-32-64", "cifar-64-128", "resnet-64", "resnet-128", "resnet-512", "resnet-1x1")
TILED = {"register_tiled": "float32", "tensor_core": "bfloat16", "warpgroup": "float16"}  # rungs with tiles, what of
SLOPE = 0.01  # of leaky ReLU
SLACK = {
    "cpu": 6e-7,
    "float32": 2e-5,
    "tf32": 2.5e-3,  # eleven bits, as float16 has; some of cuDNN's algorithms round nothing to it
    "float16": 2.5e-3,
    "bfloat16": 2e-2,
    "bf16": 2e-2,
}  # the order of additions differs from torch's; wrong is wronger
FIRST = "resnet-64@", "resnet-128@", "resnet-256@", "resnet-512@", "cifar", "lenet"  # measured before other layers
aten = torch.ops.aten


class Problems(NamedTuple):
    """What to make cases of. ladder: the convolutions on which every rung is timed by itself; tiny: those by which what a
    call costs is told; calls: of functions around these; swept: the convolutions on which every tile is timed; float16:
    those that a GPU also does in float16, which is bfloat16's twin."""

    convolutions: tuple[layers.Conv, ...] = ()
    ladder: tuple[layers.Conv, ...] = ()
    pools: tuple[layers.Pool, ...] = ()
    activations: tuple[layers.Activation, ...] = ()
    networks: tuple[Network, ...] = ()
    tiny: tuple[layers.Conv, ...] = ()
    calls: tuple[layers.Call, ...] = ()
    swept: tuple[layers.Conv, ...] = ()
    float16: tuple[layers.Conv, ...] = ()


def zoo(backend) -> Problems:
    """On a GPU the same layers as on a CPU and others, in batches that fill one."""
    if backend == "cpu":
        calls = (*layers.AROUND, *layers.FUNCTIONS)
        return Problems(layers.CONVOLUTIONS, (), layers.POOLS, layers.ACTIVATIONS, NETWORKS, (layers.TINY,), calls)
    named = {layer.name.partition("@")[0]: layer for layer in reversed(layers.GPU_CONVOLUTIONS)}  # in the small batch
    rungs, swept = (tuple(named[name] for name in names) for names in (LADDER, SWEPT))
    others = layers.GPU_POOLS, layers.GPU_ACTIVATIONS, GPU_NETWORKS
    return Problems(layers.GPU_CONVOLUTIONS, rungs, *others, swept=swept, float16=rungs)


def cases_of(problems: Problems, backend, algo="auto", compiled=True, precisions=()) -> list[Case]:
    """algo: what convlab's convolutions run. compiled: whether torch.compile takes part in training steps. precisions:
    in which a CPU convolves beside float32; a GPU does in all of its own."""
    cpu = backend == "cpu"
    precisions = ("float32", *precisions) if cpu else PRECISIONS
    # Both layouts of a pass follow one another: cuDNN remembers for the second what it found out for the first.
    convolutions = (
        (layer, pass_, layout, precision, backend, algo)
        for layer, pass_ in product(problems.convolutions, PASSES)
        for precision in precisions
        for layout in LAYOUTS
        if precision != "float16" or layer in problems.float16
    )
    steps = product(problems.networks, *((LAYOUTS, ["float32"]) if cpu else (["nchw"], PRECISIONS[:3])))
    return [
        *(convolution(*of) for of in convolutions),
        *(ladder(layer, pass_, backend) for layer, pass_ in product(problems.ladder, PASSES)),
        *(pooling(*of) for of in product(problems.pools, LAYOUTS, ("forward", "backward"))),
        *(activation(layer, pass_) for layer in problems.activations for pass_ in layer.passes),
        *(step(network, layout, p, backend, algo, compiled) for network, layout, p in steps),
        *(overhead(layer, pass_) for layer in problems.tiny for pass_ in ("forward", "forward+backward")),
        *(
            around(call, layout, pass_)
            for call in problems.calls
            for layout in (LAYOUTS if len(call.x) == 4 else ["nchw"])
            for pass_ in call.passes
        ),
        *(tiles(*of) for of in product(problems.swept, PASSES, TILED)),
    ]


def rank(case) -> tuple[int, int]:
    """When a GPU measures it: what comes last is what a run leaves out whose time is up. Convolutions that everybody asks
    about, what takes no time, training steps, other convolutions, rungs, float16, large batches, tiles."""
    if case.kind != "conv":
        return {"pool": 1, "activation": 1, "step": 2, "ladder": 4}.get(case.kind, 7), 0
    place = next((i for i, name in enumerate(FIRST) if case.layer.startswith(name)), len(FIRST))
    name, _, batch = case.layer.partition("@")
    if batch and int(batch) > min(layers.GPU_BATCHES.get(name, [int(batch)])):
        return 6, place
    return 5 if case.precision == "float16" else 0 if place < len(FIRST) else 3, place


# ---- convolutions ----------------------------------------------------------------------------------------------------


def convolution(layer, pass_, layout, precision, backend, algo="auto") -> Case:
    """torch's in either layout. On a CPU forward adds the bias, and wgrad makes its gradient, too."""
    ways = {OURS: Way(layout, _by_convlab(layer, pass_, backend, algo), precision)}
    ways |= {f"torch {name}": Way(name, _by_torch(layer, pass_), precision) for name in LAYOUTS}
    return _convolution("conv", layer, pass_, layout, precision, backend, ways)


def ladder(layer, pass_, backend) -> Case:
    """Every rung, beside the one that "auto" takes."""
    ways = {OURS: Way("nchw", _by_convlab(layer, pass_, backend, "auto"))}
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False  # as they will run
    able = [rung for rung in algorithms() if rung.supports(layer.problem(backend=backend), pass_)[0]]
    torch.backends.cudnn.allow_tf32 = before
    for rung in able:
        if backend in rung.backends:
            ways[f"{OURS} {rung.name}"] = Way("nchw", _by_convlab(layer, pass_, backend, rung.name))
    ways["torch nchw"] = Way("nchw", _by_torch(layer, pass_))
    return _convolution("ladder", layer, pass_, "nchw", "float32", backend, ways)


def tiles(layer, pass_, rung) -> Case:
    """A rung with every tile that it can take, beside itself with the one that it chooses."""
    precision, (chosen,) = TILED[rung], (a for a in algorithms() if a.name == rung)
    each = with_each_tile(chosen, layer.problem(getattr(torch, precision)), pass_).values()
    numbers = {OURS: chosen.number} | {f"{OURS} {tile.name}": tile.number for tile in each}
    ways = {name: Way("nchw", _by_number(layer, pass_, number), precision) for name, number in numbers.items()}
    ways["torch nchw"] = Way("nchw", _by_torch(layer, pass_), precision)
    return _convolution("tiles", layer, pass_, "nchw", precision, "cuda", ways)


def _convolution(kind, layer, pass_, layout, precision, backend, ways):
    bias, dtype = backend == "cpu", dtype_of(precision)

    def draw():
        t = {"x": torch.randn(layer.x), "w": torch.randn(layer.w), "dy": torch.randn(layer.y)}
        t["w"] *= math.prod(layer.w[1:]) ** -0.5
        return t | ({"bias": torch.randn(layer.K)} if bias else {})

    elements = sum(map(math.prod, (layer.x, layer.w, layer.y))) + layer.K * bias
    head, work = (kind, str(layer), pass_, layout, precision), (layer.flops, dtype.itemsize * elements)
    slack = SLACK["cpu" if (backend, precision) == ("cpu", "float32") else precision]
    kernels = kind == "conv" and layout == "nchw"  # beside channels_last, torch's ways are the same
    return Case(*head, *work, draw, ways, _by_torch(layer, pass_), dtype, slack=slack, kernels=kernels)


def _by_torch(layer, pass_):
    def bind(t):
        x, w, dy, bias = t["x"], t["w"], t["dy"], t.get("bias")
        if pass_ == "forward":
            return lambda: F.conv2d(x, w, bias, *layer.arguments)
        wgrad, has_bias = pass_ == "wgrad", bias is not None
        sizes = [layer.K] if has_bias else None
        mask = [not wgrad, wgrad, wgrad and has_bias]
        wanted = slice(1, 2 + has_bias) if wgrad else slice(1)
        rest = sizes, layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups, mask
        return lambda: aten.convolution_backward.default(dy, x, w, *rest)[wanted]

    return bind


def _by_convlab(layer, pass_, backend, algo):
    def bind(t):
        problem = dataclasses.replace(Conv2dProblem.of(t["x"], t["w"], *layer.arguments), backend=backend)
        wanted = algo if algo == "auto" else {pass_: algo}
        numbers = as_switched(numbers_of(wanted, backend, problem), backend, problem.dtype)
        return _by_number(layer, pass_, numbers[PASSES.index(pass_)])(t)

    return bind


def _by_number(layer, pass_, number):
    def bind(t):
        x, w, dy, bias = t["x"], t["w"], t["dy"], t.get("bias")
        problem, outputs = Conv2dProblem.of(x, w, *layer.arguments), 1 + (bias is not None)
        geometry, channels_last = problem.geometry, problem.channels_last
        if pass_ == "forward":
            return lambda: ops.conv2d_forward(x, w, bias, geometry, number)
        if pass_ == "dgrad":
            return lambda: ops.conv2d_dgrad(dy, w, x.shape[2:], geometry, channels_last, number)
        rest = geometry, bias is not None, channels_last, number
        return lambda: ops.conv2d_wgrad(dy, x, w.shape[2:], *rest)[:outputs]

    return bind


# ---- pooling, leaky ReLU and ReLU ------------------------------------------------------------------------------------


def pooling(layer, layout, pass_) -> Case:
    """Max pooling remembers the winners, as in training: a byte an output."""
    by_torch, by_convlab = (partial(bind, layer, pass_) for bind in _POOLINGS[layer.operation])
    ways = {OURS: Way(layout, by_convlab)} | {f"torch {name}": Way(name, by_torch) for name in LAYOUTS}
    head, draw = ("pool", layer.name, pass_, layout, "float32"), _drawer(x=layer.x, dy=layer.y)
    return Case(*head, 0, layer.bytes, draw, ways, by_torch)


def _drawer(**shapes):
    return lambda: {name: torch.randn(shape) for name, shape in shapes.items()}


def _window(layer):
    return [layer.kernel] * 2, [layer.stride] * 2, [layer.padding] * 2


def _max_by_torch(layer, pass_, t):
    x, dy, window = t["x"], t["dy"], (*_window(layer), [1, 1], layer.ceil_mode)
    if pass_ == "forward":
        return lambda: aten.max_pool2d_with_indices.default(x, *window)[0]
    indices = aten.max_pool2d_with_indices.default(x, *window)[1]
    return lambda: aten.max_pool2d_with_indices_backward.default(dy, x, *window, indices)


def _max_by_convlab(layer, pass_, t):
    x, dy, window = t["x"], t["dy"], pooling_window("", layer.kernel, layer.stride, layer.padding)
    if pass_ == "forward":
        return lambda: ops.max_pool2d_forward(x, window, layer.ceil_mode, True)[0]
    offsets = ops.max_pool2d_forward(x, window, layer.ceil_mode, True)[1]
    return lambda: ops.max_pool2d_backward(dy, offsets, x.shape[2:], window, is_channels_last(x))


def _average_by_torch(layer, pass_, t):
    x, dy, window = t["x"], t["dy"], (*_window(layer), layer.ceil_mode, True, None)
    if pass_ == "forward":
        return lambda: aten.avg_pool2d.default(x, *window)
    return lambda: aten.avg_pool2d_backward.default(dy, x, *window)


def _average_by_convlab(layer, pass_, t):
    x, dy, window = t["x"], t["dy"], pooling_window("", layer.kernel, layer.stride, layer.padding)
    if pass_ == "forward":
        return lambda: ops.avg_pool2d_forward(x, window, layer.ceil_mode, True, 0)
    return lambda: ops.avg_pool2d_backward(dy, x.shape[2:], window, True, 0, is_channels_last(x))


_POOLINGS = {"max": (_max_by_torch, _max_by_convlab), "average": (_average_by_torch, _average_by_convlab)}


def activation(layer, pass_) -> Case:
    """Leaky ReLU's forward keeps for backward where x is positive, on CUDA a bit an element; inference keeps nothing."""
    by_torch, by_convlab = _ACTIVATIONS[layer.operation, pass_]
    head, draw = ("activation", layer.name, pass_, "nchw", "float32"), _drawer(x=layer.x, dy=layer.x)
    ways = {OURS: Way("nchw", by_convlab), "torch nchw": Way("nchw", by_torch)}
    return Case(*head, 0, layer.bytes(pass_), draw, ways, by_torch)


def _leaky_relu_backward(t):
    dy, (_, positive) = t["dy"], ops.leaky_relu_forward(t["x"], SLOPE, True, True)  # what forward remembers
    return lambda: ops.leaky_relu_backward(dy, positive, SLOPE)


def _on(call, *names_and_rest):
    """Binds a call to the tensors that are named and what else it takes."""
    return lambda t: partial(call, *(t[a] if isinstance(a, str) else a for a in names_and_rest))


_LEAKY = _on(aten.leaky_relu.default, "x", SLOPE)
_ACTIVATIONS = {  # torch's and convlab's
    ("leaky_relu", "inference"): (_LEAKY, lambda t: lambda: ops.leaky_relu_forward(t["x"], SLOPE, False)[0]),
    ("leaky_relu", "forward"): (_LEAKY, lambda t: lambda: ops.leaky_relu_forward(t["x"], SLOPE, True, True)[0]),
    ("leaky_relu", "backward"): (_on(aten.leaky_relu_backward.default, "dy", "x", SLOPE, False), _leaky_relu_backward),
    ("relu", "forward"): (_on(aten.relu.default, "x"), _on(ops.relu_forward, "x")),
    ("relu", "backward"): (_on(aten.threshold_backward.default, "dy", "x", 0), _on(ops.relu_backward, "dy", "x")),
}


# ---- functions around these ------------------------------------------------------------------------------------------


def around(call, layout, pass_) -> Case:
    """A function as people call it: forward where nobody wants a gradient, the others by torch.autograd.grad. torch's in
    either layout; of one dimension, that is [N, W, C] in memory."""

    def draw():
        t = {"x": torch.randn(call.x), "dy": torch.randn(call.y)}
        for i, shape in enumerate(call.parameters):
            t[f"parameter {i}"] = torch.randn(shape) * math.prod(shape[1:]) ** -0.5
        if call.function == "max_unpool2d":
            t["x"], t["indices"] = F.max_pool2d(t["dy"], *call.arguments, return_indices=True)
        return t

    ways = {OURS: Way(layout, partial(_called, CF, call, pass_, False))}
    ways |= {f"torch {name}": Way(name, partial(_called, F, call, pass_, False)) for name in LAYOUTS}
    if len(call.x) == 3:
        ways["torch channels_last"] = Way("nchw", partial(_called, F, call, pass_, True))
    head, reference = (call.function, call.name, pass_, layout, "float32"), partial(_called, F, call, pass_, False)
    slack, grad = SLACK["cpu"], pass_ != "forward"
    return Case(*head, call.flops, call.bytes, draw, ways, reference, grad=grad, slack=slack, kernels=False)


def _called(functions, call, pass_, innermost, t):
    """innermost: of [N, C, W], the channels."""

    def lay(t):
        return t.transpose(1, 2).contiguous().transpose(1, 2) if innermost and t.dim() == 3 else t

    function, others = getattr(functions, call.function), [t[name] for name in ("indices",) if name in t]
    inputs = [lay(t["x"]), *(lay(t[f"parameter {i}"]) for i in range(len(call.parameters)))]
    if pass_ == "forward":
        return lambda: function(*inputs, *others, *call.arguments)
    wanted = inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    if pass_ != "backward":
        wanted = inputs[:1] if pass_ == "dgrad" else inputs[1:]
        for tensor in inputs:
            tensor.requires_grad_(any(tensor is one for one in wanted))
    with torch.enable_grad():
        y = function(*inputs, *others, *call.arguments)
    return lambda: torch.autograd.grad(y, wanted, t["dy"], retain_graph=True)


# ---- what a call costs -----------------------------------------------------------------------------------------------


def overhead(layer, pass_) -> Case:
    """A call before any arithmetic, through the functions that people call."""
    grad = pass_ != "forward"

    def by(conv2d):
        def bind(t):
            x, w, bias = inputs = [t[name].clone().requires_grad_(grad) for name in ("x", "w", "bias")]
            if grad:
                return lambda: torch.autograd.grad(conv2d(x, w, bias), inputs, t["dy"])
            return lambda: conv2d(x, w, bias)

        return bind

    head, draw = ("overhead", str(layer), pass_, "nchw", "float32"), _drawer(x=layer.x, w=layer.w, bias=[1], dy=layer.y)
    ways = {OURS: Way("nchw", by(CF.conv2d)), "torch nchw": Way("nchw", by(F.conv2d))}
    return Case(*head, 0, 0, draw, ways, by(F.conv2d), grad=grad, slack=1e-6)
