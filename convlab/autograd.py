"""One torch.autograd.Function per primitive, closed under differentiation.

Convolution is bilinear, and every derivative of its three passes is one of them:

    y  = forward(x, w) + b      dx = dgrad(dy, w)             dw, db = wgrad(dy, x)
    dx = dgrad(dy, w)           d dy = forward(ddx, w)        dw = wgrad(dy, ddx)
    dw, db = wgrad(dy, x)       d dy = forward(x, ddw) + ddb  dx = dgrad(dy, ddw)

so each backward applies the other Functions, and derivatives of any order need no new kernel. Max pooling closes as a
pair (scatter to the winners, gather from them), so does average pooling, the activations each with itself.

Forward-mode derivatives need no new kernel either: what is linear has itself for a `tangent`, the convolutions are
linear in each of two arguments, and max pooling gathers, the activations mask their argument's tangent.

The form (setup_context, no jvp, no once_differentiable) is the one that passes gradcheck, gradgradcheck,
torch.compile(fullgraph=True) and torch.export together. torch.func's transforms and forward mode are _levels.py's, of
`tangent` and `batch`.
"""

from typing import NamedTuple

import torch
from torch.autograd import Function

from . import ops, simulator
from ._batching import BIAS, W, X, Y, channel_by_channel, convolution, elementwise, first, image_by_image
from ._fast_apply import apply, asked_for, binds_nothing, has_at_once, is_watched, needs_autograd, record
from ._levels import is_functionalized
from .arguments import is_channels_last, only_contiguous, plane


class ConvArguments(NamedTuple):
    """What a convolution has beside its tensors: `geometry` as in csrc/ops.cpp, `algo` the algorithms' numbers by
    pass."""

    geometry: tuple[int, ...]
    algo: tuple[int, ...]


class BlockArguments(NamedTuple):
    """A convolution's, and how a block goes on: `ending` as in csrc/ops.cpp"""

    geometry: tuple[int, ...]
    algo: tuple[int, ...]
    ending: tuple[int, int, int]
    negative_slope: float


Window = tuple[int, ...]  # a pooling's, as in csrc/ops.cpp


def conv2d(x, w, bias, geometry, algo):
    """y, differentiable"""
    if needs_autograd(x, w, bias):
        return record(Conv2dForward, x, w, bias, ConvArguments(geometry, algo))
    return ops.conv2d_forward(x, w, bias, geometry, algo[0])  # without a frame of Python, and a tuple


def conv2d_block(x, w, bias, arguments: BlockArguments):
    """y, differentiable"""
    if needs_autograd(x, w, bias):
        return record(Conv2dBlock, x, w, bias, arguments)[0]
    return ops.conv2d_block_forward(
        x, w, bias, arguments.geometry, arguments.ending, arguments.negative_slope, False, arguments.algo[0]
    )[0]


def in_place(function: type[Function], x, *args):
    """x, overwritten by `function` of it, whose output has its shape.

    By a kernel that reads x and writes over it, with or without a gradient. Not where a mode, a transform or a subclass
    of torch.Tensor is to see what torch itself does in place: there the output is made and copied. Views and leaves that
    want a gradient are torch's to handle, and to refuse.
    """
    wants_gradient = needs_autograd(x)
    if is_watched(x) or x._is_view() or (wants_gradient and x.is_leaf):
        y = apply(function, x, *args)
        return overwrite(x, y if isinstance(y, torch.Tensor) else y[0])
    if wants_gradient:
        y = function.overwriting.at_once(x, *args)
        return y if isinstance(y, torch.Tensor) else y[0]
    function.write_over(x, False, *args)
    if not x.is_inference():  # which has no version
        torch.autograd.graph.increment_version(x)
    return x


def overwrite(x, y):
    """x.copy_(y), also where `functionalize` would make of copy_ what has neither a derivative nor a rule for vmap (torch
    2.14)."""
    if torch.compiler.is_compiling() or not is_functionalized():
        return x.copy_(y)
    return x.fill_(-0.0).add_(y)  # -0.0 + y is y, whatever its sign


def overwriting(function: type[Function], setup_context, backward) -> type[Function]:
    """The sibling of a primitive that writes over its first argument, with `write_over(x, wants_gradient, *args)`: it gives
    what forward has beside y, or None."""

    class Overwriting(Function):
        @staticmethod
        def forward(x, *args):
            other = function.write_over(x, True, *args)
            return x if other is None else (x, other)

    def setup_and_mark(ctx, inputs, output):
        ctx.mark_dirty(inputs[0])
        setup_context(ctx, inputs, output)

    Overwriting.__name__ = function.__name__
    has_at_once(Overwriting, setup_and_mark, backward)
    return Overwriting


PRIMITIVES: list[type[Function]] = []


def primitive(function: type[Function]) -> type[Function]:
    """Marks a Function as one of ours: a signature that costs little, a backward that goes where the forward went, into
    a simulation or not, and a sibling that works in place if it has `write_over`.

    It has a rule for vmap, `batch` (_batching.py), and one for forward mode: `tangent` of its arguments, their tangents
    (None: no tangent) and its output."""
    setup_context, backward = function.setup_context, function.backward

    def setup_and_remember(ctx, inputs, output):
        if not torch.compiler.is_compiling() and simulator.libraries:
            ctx.simulation = simulator.current()
        return setup_context(ctx, inputs, output)

    def backward_where_forward_was(ctx, *grads):
        if torch.compiler.is_compiling() or not simulator.libraries:
            return backward(ctx, *grads)
        simulation = getattr(ctx, "simulation", None)
        if simulation is simulator.current():
            return backward(ctx, *grads)
        with simulator.resumed(simulation):
            return backward(ctx, *grads)

    def backward_eagerly(ctx, *grads):
        if grads[0] is None:  # nobody asks for a gradient of what this made
            return (None,) * len(ctx.needs_input_grad)
        return backward_where_forward_was(ctx, *grads) if simulator.libraries else backward(ctx, *grads)

    function.setup_context, function.backward = (
        staticmethod(setup_and_remember),
        staticmethod(backward_where_forward_was),
    )
    name = function.__name__
    function.own_name = staticmethod(lambda: name)  # Dynamo knows no other name of a Function
    binds_nothing(function)
    has_at_once(function, setup_context, backward_eagerly)
    if hasattr(function, "write_over"):
        function.overwriting = overwriting(function, setup_context, backward_eagerly)
    PRIMITIVES.append(function)
    return function


def linear(function, args, tangents, _):
    """The tangent of what is linear in its first argument, where no other one has a derivative."""
    return None if tangents[0] is None else apply(function, tangents[0], *args[1:])


# ---- convolution ----------------------------------------------------------------------------------------------------


class Forms(NamedTuple):
    """What a gradient of x or w takes from that tensor itself: its size and how it lies"""

    input_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    channels_last: bool
    dw_channels_last: bool

    @classmethod
    def of(cls, x, w):
        channels_last = is_channels_last(x) or is_channels_last(w)
        return cls(plane(x), plane(w), channels_last, channels_last and not only_contiguous(w))


def remember(ctx, x, w, *others):
    """What the backward of a convolution of x and w needs of them, and `others`"""
    needs_dx, needs_dw, *_ = ctx.needs_input_grad
    ctx.forms = None if needs_dx and needs_dw else Forms.of(x, w)
    ctx.save_for_backward(x if needs_dw else None, w if needs_dx else None, *others)


def bilinear(function, args, tangents, y):
    """The tangent of what is linear in each of its first two arguments, to which it adds a bias."""
    (x, w, _, *others), (tx, tw, tbias, *_) = args, tangents
    terms = [] if tx is None else [apply(function, tx, w, None, *others)]
    if tw is not None:
        terms.append(apply(function, x, tw, tbias, *others))
    elif tbias is not None:
        terms.append(tbias[:, None, None].expand_as(y))
    return sum(terms[1:], terms[0])


@primitive
class Conv2dForward(Function):
    """x [N, C, H, W], w [K, C/groups, R, S], bias [K] or None -> y [N, K, P, Q]"""

    batch, tangent = classmethod(convolution((X, W, BIAS), (Y,), 0)), classmethod(bilinear)

    @staticmethod
    def forward(x, w, bias, a: ConvArguments):
        return ops.conv2d_forward(x, w, bias, a.geometry, a.algo[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, w, _, ctx.arguments = inputs
        remember(ctx, x, w)

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        needs_dw, needs_db, needs_dx = asked_for(ctx, dy, 1, 2, 0)
        dx = dw = db = None
        if needs_dx and needs_dw and not torch.compiler.is_compiling() and not needs_autograd(dy, x, w):
            a = ctx.arguments  # the usual case, by one call: 0.90 of the time of a small forward and backward
            dx, dw, db = ops.conv2d_backward(dy, x, w, a.geometry, needs_db, a.algo[1], a.algo[2])
            return dx, dw, db if needs_db else None, None
        forms = ctx.forms or Forms.of(x, w)
        if needs_dx:
            dx = apply(Conv2dDgrad, dy, w, forms.input_size, forms.channels_last, ctx.arguments)
        if needs_dw:
            dw, db = apply(Conv2dWgrad, dy, x, forms.kernel_size, needs_db, forms.dw_channels_last, ctx.arguments)
        elif needs_db:
            db = apply(Conv2dBiasGrad, dy)
        return dx, dw, db if needs_db else None, None


@primitive
class Conv2dDgrad(Function):
    """dy [N, K, P, Q], w [K, C/groups, R, S] -> dx [N, C, H, W], where input_size is (H, W)"""

    batch = classmethod(convolution((Y, W), (X,), 1))

    @staticmethod
    def forward(dy, w, input_size, channels_last, a: ConvArguments):
        return ops.conv2d_dgrad(dy, w, input_size, a.geometry, channels_last, a.algo[1])

    @staticmethod
    def setup_context(ctx, inputs, output):
        dy, w, _, channels_last, ctx.arguments = inputs
        needs_ddy, needs_dw = ctx.needs_input_grad[:2]
        ctx.kernel_size, ctx.dw_channels_last = plane(w), channels_last and not only_contiguous(w)
        ctx.save_for_backward(dy if needs_dw else None, w if needs_ddy else None)

    @classmethod
    def tangent(cls, args, tangents, _):
        (dy, w, *others), (tdy, tw, *_) = args, tangents
        terms = [] if tdy is None else [apply(cls, tdy, w, *others)]
        if tw is not None:
            terms.append(apply(cls, dy, tw, *others))
        return sum(terms[1:], terms[0])

    @staticmethod
    def backward(ctx, ddx):
        dy, w = ctx.saved_tensors
        needs_dw, needs_ddy = asked_for(ctx, ddx, 1, 0)
        ddy = apply(Conv2dForward, ddx, w, None, ctx.arguments) if needs_ddy else None
        dw = (
            apply(Conv2dWgrad, dy, ddx, ctx.kernel_size, False, ctx.dw_channels_last, ctx.arguments)[0]
            if needs_dw
            else None
        )
        return ddy, dw, None, None, None


@primitive
class Conv2dWgrad(Function):
    """dy [N, K, P, Q], x [N, C, H, W] -> dw [K, C/groups, R, S], where kernel_size is (R, S), and db [K], empty unless
    with_bias"""

    batch = classmethod(convolution((Y, X), (W, BIAS), 2))

    @staticmethod
    def forward(dy, x, kernel_size, with_bias, channels_last, a: ConvArguments):
        return ops.conv2d_wgrad(dy, x, kernel_size, a.geometry, with_bias, channels_last, a.algo[2])

    @staticmethod
    def setup_context(ctx, inputs, output):
        dy, x, _, ctx.with_bias, channels_last, ctx.arguments = inputs
        needs_ddy, needs_dx = ctx.needs_input_grad[:2]
        ctx.input_size, ctx.channels_last = plane(x), channels_last or is_channels_last(x)
        ctx.save_for_backward(dy if needs_dx else None, x if needs_ddy else None)

    @classmethod
    def tangent(cls, args, tangents, _):
        (dy, x, kernel_size, with_bias, *others), (tdy, tx, *_) = args, tangents
        tdw, tdb = (None, None) if tdy is None else apply(cls, tdy, x, kernel_size, with_bias, *others)
        if tx is not None:
            term, _ = apply(cls, dy, tx, kernel_size, False, *others)
            tdw = term if tdw is None else tdw + term
        return tdw, tdb

    @staticmethod
    def backward(ctx, ddw, ddb):
        dy, x = ctx.saved_tensors
        needs_ddy, needs_dx = asked_for(ctx, ddw, 0, 1)
        ddy = apply(Conv2dForward, x, ddw, ddb if ctx.with_bias else None, ctx.arguments) if needs_ddy else None
        dx = apply(Conv2dDgrad, dy, ddw, ctx.input_size, ctx.channels_last, ctx.arguments) if needs_dx else None
        return ddy, dx, None, None, None, None


@primitive
class Conv2dBiasGrad(Function):
    """dy [N, K, P, Q] -> db [K]"""

    batch, tangent = classmethod(channel_by_channel), classmethod(linear)

    @staticmethod
    def forward(dy):
        return ops.conv2d_bias_grad(dy)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx, ddb):
        return ddb[None, :, None, None].expand(ctx.shape)


# ---- max pooling ----------------------------------------------------------------------------------------------------


@primitive
class MaxPool2d(Function):
    """x [N, C, H, W] -> y [N, C, P, Q] and offsets [N, C, P, Q], which tap of its window won"""

    batch = classmethod(image_by_image)

    @staticmethod
    def forward(x, ceil_mode, window: Window):
        return ops.max_pool2d_forward(x, window, ceil_mode, True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, _, ctx.arguments = inputs
        ctx.input_size, ctx.channels_last = plane(x), is_channels_last(x)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @classmethod
    def tangent(cls, args, tangents, output):
        return apply(MaxPool2dGather, tangents[0], output[1], args[2]), None

    @staticmethod
    def backward(ctx, dy, _):
        (offsets,) = ctx.saved_tensors
        return apply(MaxPool2dBackward, dy, offsets, ctx.input_size, ctx.channels_last, ctx.arguments), None, None


@primitive
class MaxPool2dBackward(Function):
    """dy, offsets [N, C, P, Q] -> dx [N, C, H, W]: each dy at its winner"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def forward(dy, offsets, input_size, channels_last, window: Window):
        return ops.max_pool2d_backward(dy, offsets, input_size, window, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, offsets, _, _, ctx.arguments = inputs
        ctx.save_for_backward(offsets)

    @staticmethod
    def backward(ctx, ddx):
        (offsets,) = ctx.saved_tensors
        return apply(MaxPool2dGather, ddx, offsets, ctx.arguments), None, None, None, None


@primitive
class MaxPool2dGather(Function):
    """x [N, C, H, W], offsets [N, C, P, Q] -> y [N, C, P, Q]: x at the winners"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def forward(x, offsets, window: Window):
        return ops.max_pool2d_gather(x, offsets, window)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, offsets, ctx.arguments = inputs
        ctx.input_size, ctx.channels_last = plane(x), is_channels_last(x)
        ctx.save_for_backward(offsets)

    @staticmethod
    def backward(ctx, dy):
        (offsets,) = ctx.saved_tensors
        return apply(MaxPool2dBackward, dy, offsets, ctx.input_size, ctx.channels_last, ctx.arguments), None, None


@primitive
class MaxPool2dIndices(Function):
    """offsets [N, C, P, Q] -> the int64 positions h * W + w of the winners in x [N, C, H, W], where input_size is (H, W),
    in the layout of y"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def forward(offsets, input_size, channels_last, window: Window):
        indices = ops.max_pool2d_indices(offsets, input_size, window)
        if channels_last and not is_channels_last(indices):  # on CUDA, where offsets never are
            return indices.clone(memory_format=torch.channels_last)
        return indices

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx, _):
        return None, None, None, None


# ---- average pooling ------------------------------------------------------------------------------------------------


class AvgPoolArguments(NamedTuple):
    window: Window
    ceil_mode: bool
    count_include_pad: bool
    divisor: int  # 0: the number of elements in the window


@primitive
class AvgPool2d(Function):
    """x [N, C, H, W] -> y [N, C, P, Q]"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def forward(x, a: AvgPoolArguments):
        return ops.avg_pool2d_forward(x, *a)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.arguments = inputs
        ctx.input_size, ctx.channels_last = plane(x), is_channels_last(x)

    @staticmethod
    def backward(ctx, dy):
        return apply(AvgPool2dBackward, dy, ctx.input_size, ctx.channels_last, ctx.arguments), None


@primitive
class AvgPool2dBackward(Function):
    """dy [N, C, P, Q] -> dx [N, C, H, W], where input_size is (H, W)"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def forward(dy, input_size, channels_last, a: AvgPoolArguments):
        return ops.avg_pool2d_backward(dy, input_size, a.window, a.count_include_pad, a.divisor, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.arguments = inputs[3]

    @staticmethod
    def backward(ctx, ddx):
        return apply(AvgPool2d, ddx, ctx.arguments), None, None, None


# ---- activations ----------------------------------------------------------------------------------------------------


@primitive
class LeakyReLU(Function):
    """x -> y = x > 0 ? x : x slope, and where x > 0: all that backward asks of x, in a byte an element; in a bit, in the
    order of memory, with `as_bits` of an x that lies contiguous or channels_last

    With `inplace`, y is written over x; torch refuses the gradient if the slope is negative, and so does
    this.
    """

    @classmethod
    def batch(cls, size, dims, args):
        return elementwise(cls, size, dims, (*args[:3], False))

    @staticmethod
    def forward(x, negative_slope, inplace, as_bits):
        return ops.leaky_relu_forward(x, negative_slope, True, as_bits)

    @staticmethod
    def write_over(x, wants_gradient, negative_slope, inplace, as_bits):
        return ops.leaky_relu_(x, negative_slope, wants_gradient, as_bits)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.negative_slope, ctx.inplace, _ = inputs
        ctx.channels_last = not x.is_contiguous()  # where it matters
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @classmethod
    def tangent(cls, args, tangents, output):
        x, negative_slope, *_ = args
        return apply(LeakyReLUBackward, tangents[0], output[1], negative_slope, not x.is_contiguous()), None

    @staticmethod
    def backward(ctx, dy, _):
        if ctx.inplace and not ctx.negative_slope >= 0:
            raise RuntimeError(
                f"leaky_relu: negative_slope={ctx.negative_slope} with inplace=True has no gradient, as in torch; use inplace=False"
            )
        (positive,) = ctx.saved_tensors
        return apply(LeakyReLUBackward, dy, positive, ctx.negative_slope, ctx.channels_last), None, None, None


@primitive
class LeakyReLUBackward(Function):
    """dx = positive ? dy : dy slope. positive: bools, or bits of an x that lay channels_last or contiguous"""

    tangent = classmethod(linear)

    @classmethod
    def batch(cls, size, dims, args):
        dy, positive, negative_slope, channels_last = args
        if positive.dtype is torch.uint8:
            positive = ops.bools_of(positive, first(dy, dims[0], size).shape[1:], channels_last)
        return elementwise(cls, size, dims, (dy, positive, negative_slope, False))

    @staticmethod
    def forward(dy, positive, negative_slope, channels_last):
        return ops.leaky_relu_backward(dy, positive, negative_slope, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, positive, ctx.negative_slope, ctx.channels_last = inputs
        ctx.save_for_backward(positive)

    @staticmethod
    def backward(ctx, ddx):
        (positive,) = ctx.saved_tensors
        return apply(LeakyReLUBackward, ddx, positive, ctx.negative_slope, ctx.channels_last), None, None, None


@primitive
class ReLU(Function):
    """y = x > 0 ? x : 0, NaN stays"""

    batch = classmethod(elementwise)

    @staticmethod
    def forward(x):
        return ops.relu_forward(x)

    @staticmethod
    def write_over(x, wants_gradient):
        return ops.relu_(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @classmethod
    def tangent(cls, _, tangents, y):
        return apply(ReLUBackward, tangents[0], y)

    @staticmethod
    def backward(ctx, dy):
        (y,) = ctx.saved_tensors
        return apply(ReLUBackward, dy, y)


@primitive
class ReLUBackward(Function):
    """dx = y <= 0 ? 0 : dy"""

    batch, tangent = classmethod(elementwise), classmethod(linear)

    @staticmethod
    def forward(dy, y):
        return ops.relu_backward(dy, y)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, ddx):
        (y,) = ctx.saved_tensors
        return apply(ReLUBackward, ddx, y), None


# ---- a block --------------------------------------------------------------------------------------------------------


@primitive
class Conv2dBlock(Function):
    """x, w, bias as of Conv2dForward -> y, convolution, activation and max pooling in one, and winners, a byte an element
    of it. Its derivatives beyond the first are those of the layers that it is made of."""

    batch = classmethod(convolution((X, W, BIAS), (Y, Y), 0))

    @staticmethod
    def forward(x, w, bias, a: BlockArguments):
        return ops.conv2d_block_forward(x, w, bias, a.geometry, a.ending, a.negative_slope, True, a.algo[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, w, _, ctx.arguments = inputs
        ctx.mark_non_differentiable(output[1])
        remember(ctx, x, w, output[1])

    @classmethod
    def tangent(cls, args, tangents, output):
        (x, w, _, a), (tx, tw, tbias, _), (y, winners) = args, tangents, output
        arguments = ConvArguments(a.geometry, a.algo)
        terms = [apply(Conv2dForward, t, v, None, arguments) for t, v in ((tx, w), (x, tw)) if None not in (t, v)]
        full = sum(terms[1:], terms[0]) if terms else None
        t = None if full is None else _of_winners(full, winners, a)
        if tbias is not None:
            t = tbias[:, None, None].expand_as(y) if t is None else t + tbias[:, None, None]
        return _passed(t, winners, a), None

    @staticmethod
    def backward(ctx, dy, _):
        x, w, winners = ctx.saved_tensors
        needs_dw, needs_db, needs_dx = asked_for(ctx, dy, 1, 2, 0)
        a = ctx.arguments
        if not (needs_dx or needs_dw) or (not torch.compiler.is_dynamo_compiling() and needs_autograd(dy, x, w)):
            return _by_layers(ctx, dy, needs_dx, needs_dw, needs_db)
        forms = ctx.forms or Forms.of(x, w)
        dx, dw, db = ops.conv2d_block_backward(
            dy,
            winners,
            x if needs_dw else None,
            w if needs_dx else None,
            forms.input_size,
            forms.kernel_size,
            a.geometry,
            a.ending,
            a.negative_slope,
            needs_db,
            forms.channels_last,
            forms.dw_channels_last,
            a.algo[1:],
        )
        return dx if needs_dx else None, dw if needs_dw else None, db if needs_db else None, None


def _by_layers(ctx, dy, needs_dx, needs_dw, needs_db):
    """The gradients of a block, differentiable"""
    x, w, winners = ctx.saved_tensors
    a, forms = ctx.arguments, ctx.forms or Forms.of(x, w)
    arguments, dx, dw, db = ConvArguments(a.geometry, a.algo), None, None, None
    dy = _passed(dy, winners, a)
    if a.ending[1:] != (1, 1):
        size = [
            (size + a.geometry[2 + d] + a.geometry[4 + d] - a.geometry[6 + d] * (kernel - 1) - 1) // a.geometry[d] + 1
            for d, (size, kernel) in enumerate(zip(forms.input_size, forms.kernel_size))
        ]
        dy = apply(MaxPool2dBackward, dy, winners & ops.TAP, size, forms.channels_last, ops.window_of(a.ending))
    if needs_dx:
        dx = apply(Conv2dDgrad, dy, w, forms.input_size, forms.channels_last, arguments)
    if needs_dw:
        dw, db = apply(Conv2dWgrad, dy, x, forms.kernel_size, needs_db, forms.dw_channels_last, arguments)
    elif needs_db:
        db = apply(Conv2dBiasGrad, dy)
    return dx, dw, db if needs_db else None, None


def _of_winners(full, winners, a: BlockArguments):
    """What is of a convolution's size, at the winners"""
    if a.ending[1:] == (1, 1):
        return full
    return apply(MaxPool2dGather, full, winners & ops.TAP, ops.window_of(a.ending))


def _passed(t, winners, a: BlockArguments):
    """t, of the winners' shape, as the activation lets a gradient or a tangent pass"""
    if a.ending[0] in (ops.ACTIVATIONS["relu"], ops.ACTIVATIONS["relu6"]):
        return apply(ReLUBackward, t, (winners > ops.TAP).to(t.dtype))
    if a.ending[0] == ops.ACTIVATIONS["leaky_relu"]:
        return apply(LeakyReLUBackward, t, winners > ops.TAP, a.negative_slope, False)
    return t
