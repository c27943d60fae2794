"""The Functions of the layers around convolution, in the form of autograd.py's.

A transposed convolution is dgrad as a forward, so conv2d is its dgrad, and wgrad is its own with the roles of input and
gradient exchanged.
"""

import torch
from torch.autograd import Function

from . import ops, simulator
from ._batching import Role, W, X, Y, convolution, elementwise, first, fold, image_by_image, unfold
from ._fast_apply import apply, asked_for
from .arguments import is_channels_last, only_contiguous, plane
from .autograd import (
    Conv2dBiasGrad,
    Conv2dForward,
    Conv2dWgrad,
    ConvArguments,
    bilinear,
    linear,
    primitive,
)

# ---- transposed convolution -----------------------------------------------------------------------------------------


@primitive
class ConvTranspose2d(Function):
    """x [N, K, P, Q], w [K, C/groups, R, S], bias [C] or None -> y [N, C, H, W], where output_size is (H, W)"""

    batch, tangent = classmethod(convolution((Y, W, Role({"c": 0}, "c")), (X,), 1)), classmethod(bilinear)

    @staticmethod
    def forward(x, w, bias, output_size, channels_last, a: ConvArguments):
        arguments = (x, w, output_size, a.geometry, channels_last, a.algo[1])
        if bias is None or (simulator.backend_of(x) == "cpu" and not torch.compiler.is_compiling()):
            y: torch.Tensor = ops.conv2d_dgrad(*arguments, bias)
            return y
        return ops.conv2d_dgrad(*arguments).add_(bias[:, None, None])

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, w, _, _, ctx.channels_last, ctx.arguments = inputs
        needs_dx, needs_dw = ctx.needs_input_grad[:2]
        ctx.kernel_size, ctx.dw_channels_last = plane(w), ctx.channels_last and not only_contiguous(w)
        ctx.save_for_backward(x if needs_dw else None, w if needs_dx else None)

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        needs_dw, needs_db, needs_dx = asked_for(ctx, dy, 1, 2, 0)
        if needs_dx and is_channels_last(dy) != ctx.channels_last:  # dx lies as dy, or w
            dy = dy.contiguous(memory_format=torch.channels_last if ctx.channels_last else torch.contiguous_format)
        dx = apply(Conv2dForward, dy, w, None, ctx.arguments) if needs_dx else None
        dw = db = None
        if needs_dw:
            dw, _ = apply(Conv2dWgrad, x, dy, ctx.kernel_size, False, ctx.dw_channels_last, ctx.arguments)
        if needs_db:
            db = apply(Conv2dBiasGrad, dy)
        return dx, dw, db, None, None, None


# ---- activations ----------------------------------------------------------------------------------------------------


@primitive
class ReLU6(Function):
    """y = x <= 0 ? 0 : x >= 6 ? 6 : x, NaN stays. Backward asks for x, as torch's does: y may be written over. With
    `inplace`, y is written over x, and kept."""

    batch = classmethod(elementwise)

    @staticmethod
    def forward(x, inplace):
        return ops.relu6_forward(x)

    @staticmethod
    def write_over(x, wants_gradient, inplace):
        return ops.relu6_(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, inplace = inputs
        ctx.save_for_backward(output if inplace else x)

    @classmethod
    def tangent(cls, _, tangents, y):
        return apply(ReLU6Backward, tangents[0], y)

    @staticmethod
    def backward(ctx, dy):
        (kept,) = ctx.saved_tensors
        return apply(ReLU6Backward, dy, kept), None


@primitive
class ReLU6Backward(Function):
    """dx = y <= 0 or y >= 6 ? 0 : dy, y being what relu6 takes or what it gives"""

    batch, tangent = classmethod(elementwise), classmethod(linear)

    @staticmethod
    def forward(dy, y):
        return ops.relu6_backward(dy, y)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, ddx):
        (y,) = ctx.saved_tensors
        return apply(ReLU6Backward, ddx, y), None


def by_channel(weight):
    """The rule for vmap of tensors [N, C, ...], the first `weight` of a Function's arguments, with what channels have
    behind them: their slopes, or how many they are."""

    def rule(function, size, dims, args):
        tensors = [first(t, d, size) for t, d in zip(args[:weight], dims)]
        w, others = args[weight], args[weight + 1 :]
        slopes = isinstance(w, torch.Tensor)
        channels = w.shape[-1] if slopes else w
        if slopes and dims[weight] is None:  # the batch is one more dimension of them, or folded into N
            if channels == 1:
                return apply(function, *tensors, w, *others), 0
            return unfold(apply(function, *(fold(t, 0) for t in tensors), w, *others), size, 0), 0
        folded = [t.reshape(1, size, -1) if channels == 1 else fold(t, 1) for t in tensors]  # into C
        if not slopes:
            return unfold(apply(function, *folded, channels * size), size, 0), 0
        y = apply(function, *folded, first(w, dims[weight], size).flatten(), *others)
        return y.reshape(tensors[0].shape) if channels == 1 else unfold(y, size, 1), 0

    return rule


@primitive
class PReLU(Function):
    """x [N, C, ...], w [C], or w [1] for all -> y = x > 0 ? x : x w"""

    batch = classmethod(by_channel(1))

    @staticmethod
    def forward(x, w):
        return ops.prelu_scale(x, x, w, True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @classmethod
    def tangent(cls, args, tangents, _):
        (x, w), (tx, tw) = args, tangents
        terms = [] if tx is None else [apply(PReLUScale, tx, x, w, True)]
        if tw is not None:
            terms.append(apply(PReLUScale, x, x, tw, False))
        return sum(terms[1:], terms[0])

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        needs_dw, needs_dx = asked_for(ctx, dy, 1, 0)
        dx = apply(PReLUScale, dy, x, w, True) if needs_dx else None
        return dx, apply(PReLUWgrad, dy, x, x, w.shape[0]) if needs_dw else None


@primitive
class PReLUScale(Function):
    """t w where not x > 0, and elsewhere t if `keep`, else 0"""

    batch = classmethod(by_channel(2))

    @staticmethod
    def forward(t, x, w, keep):
        return ops.prelu_scale(t, x, w, keep)

    @staticmethod
    def setup_context(ctx, inputs, output):
        t, x, w, ctx.keep = inputs
        ctx.save_for_backward(t, x, w)

    @classmethod
    def tangent(cls, args, tangents, y):
        (t, x, w, keep), (tt, _, tw, _) = args, tangents
        terms = [] if tt is None else [apply(cls, tt, x, w, keep)]
        if tw is not None:
            terms.append(apply(cls, t, x, tw, False))
        return sum(terms[1:], terms[0]) if terms else torch.zeros_like(y)

    @staticmethod
    def backward(ctx, g):
        t, x, w = ctx.saved_tensors
        needs_dt, _, needs_dw, _ = ctx.needs_input_grad
        dt = apply(PReLUScale, g, x, w, ctx.keep) if needs_dt else None
        return dt, None, apply(PReLUWgrad, g, t, x, w.shape[0]) if needs_dw else None, None


@primitive
class PReLUWgrad(Function):
    """dy, t, x -> dw [channels]: sums of dy t where not x > 0"""

    batch = classmethod(by_channel(3))

    @staticmethod
    def forward(dy, t, x, channels):
        return ops.prelu_wgrad(dy, t, x, channels)

    @staticmethod
    def setup_context(ctx, inputs, output):
        dy, t, x, _ = inputs
        ctx.save_for_backward(dy, t, x)

    @classmethod
    def tangent(cls, args, tangents, dw):
        (dy, t, x, channels), (tdy, tt, *_) = args, tangents
        terms = [] if tdy is None else [apply(cls, tdy, t, x, channels)]
        if tt is not None:
            terms.append(apply(cls, dy, tt, x, channels))
        return sum(terms[1:], terms[0]) if terms else torch.zeros_like(dw)

    @staticmethod
    def backward(ctx, ddw):
        dy, t, x = ctx.saved_tensors
        needs_ddy, needs_dt, _, _ = ctx.needs_input_grad
        ddy = apply(PReLUScale, t, x, ddw, False) if needs_ddy else None
        return ddy, apply(PReLUScale, dy, x, ddw, False) if needs_dt else None, None, None


# ---- adaptive pooling, of windows that are not all alike ------------------------------------------------------------


@primitive
class AdaptiveAvgPool2d(Function):
    """x [N, C, H, W] -> y [N, C, P, Q], where output_size is (P, Q)"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def forward(x, output_size):
        return ops.adaptive_avg_pool2d_forward(x, output_size)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.input_size, ctx.channels_last = inputs[0].shape[2:], is_channels_last(inputs[0])

    @staticmethod
    def backward(ctx, dy):
        return apply(AdaptiveAvgPool2dBackward, dy, ctx.input_size, ctx.channels_last), None


@primitive
class AdaptiveAvgPool2dBackward(Function):
    """dy [N, C, P, Q] -> dx [N, C, H, W], where input_size is (H, W)"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def forward(dy, input_size, channels_last):
        return ops.adaptive_avg_pool2d_backward(dy, input_size, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.output_size = inputs[0].shape[2:]

    @staticmethod
    def backward(ctx, ddx):
        return apply(AdaptiveAvgPool2d, ddx, ctx.output_size), None, None


@primitive
class AdaptiveMaxPool2d(Function):
    """x [N, C, H, W] -> y [N, C, P, Q] and the int64 positions h * W + w of the winners"""

    batch = classmethod(image_by_image)

    @staticmethod
    def forward(x, output_size):
        return ops.adaptive_max_pool2d_forward(x, output_size)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, _ = inputs
        ctx.input_size, ctx.channels_last = plane(x), is_channels_last(x)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @classmethod
    def tangent(cls, args, tangents, output):
        return apply(AdaptiveMaxPool2dGather, tangents[0], output[1], is_channels_last(output[0])), None

    @staticmethod
    def backward(ctx, dy, _):
        (indices,) = ctx.saved_tensors
        return apply(AdaptiveMaxPool2dBackward, dy, indices, ctx.input_size, ctx.channels_last), None


@primitive
class AdaptiveMaxPool2dBackward(Function):
    """dy, indices [N, C, P, Q] -> dx [N, C, H, W]: at each winner, the sum of the dy that it won"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def forward(dy, indices, input_size, channels_last):
        return ops.adaptive_max_pool2d_backward(dy, indices, input_size, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        dy, indices, _, _ = inputs
        ctx.channels_last = is_channels_last(dy)
        ctx.save_for_backward(indices)

    @staticmethod
    def backward(ctx, ddx):
        (indices,) = ctx.saved_tensors
        return apply(AdaptiveMaxPool2dGather, ddx, indices, ctx.channels_last), None, None, None


class PlanesGather(Function):
    """x [N, C, H, W], indices [N, C, P, Q] -> y [N, C, P, Q]: x there. What its backward is depends on the indices."""

    @staticmethod
    def forward(x, indices, channels_last):
        return ops.planes_gather(x, indices, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, indices, _ = inputs
        ctx.input_size, ctx.channels_last = plane(x), is_channels_last(x)
        ctx.save_for_backward(indices)


@primitive
class AdaptiveMaxPool2dGather(PlanesGather):
    """For indices of an adaptive pooling's winners, of which windows that overlap may have the same"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def backward(ctx, dy):
        (indices,) = ctx.saved_tensors
        return apply(AdaptiveMaxPool2dBackward, dy, indices, ctx.input_size, ctx.channels_last), None, None


# ---- max unpooling --------------------------------------------------------------------------------------------------


@primitive
class MaxUnpool2d(Function):
    """x, indices [N, C, P, Q] -> y [N, C, H, W], where output_size is (H, W): x at its indices, 0 elsewhere"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def forward(x, indices, output_size, channels_last):
        return ops.max_unpool2d_forward(x, indices, output_size, channels_last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, dy):
        (indices,) = ctx.saved_tensors
        return apply(MaxUnpool2dGather, dy, indices, False), None, None, None  # contiguous, as torch's


@primitive
class MaxUnpool2dGather(PlanesGather):
    """For indices that differ in each plane"""

    batch, tangent = classmethod(image_by_image), classmethod(linear)

    @staticmethod
    def backward(ctx, dy):
        (indices,) = ctx.saved_tensors
        return apply(MaxUnpool2d, dy, indices, ctx.input_size, ctx.channels_last), None, None
