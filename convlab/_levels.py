"""A Function under the transforms of torch.func and in forward mode: one level after the other, the innermost first.

torch keeps its transforms on a stack. A call is processed by the top of it, which removes its wrapping from the
tensors, has the call done by the levels below, and wraps the results. torch does that for a Function too, but has no
rule for `functionalize`, makes a class at every call, and loses the tangents of an outer level inside of a `jvp`. Here

    vmap           asks `function.batch`, made of Functions applied one level down
    jvp            asks `function.tangent`, made of Functions applied one level down, where an outer jvp sees them
    grad           records a node whose backward is `function.backward`
    functionalize  has nothing to do: no Function writes over its inputs

and below all of them is what torch calls eager: autograd, and a `forward_ad.dual_level` if there is one.
"""

import torch
from torch._C._functorch import (
    TransformType,
    _add_batch_dim,
    _unwrap_batched,
    _unwrap_for_grad,
    _wrap_for_grad,
    get_interpreter_stack,
    peek_interpreter_stack,
    unwrap_if_dead,
)
from torch._functorch.eager_transforms import _unwrap_all_tensors_from_functional, _wrap_all_tensors_to_functional
from torch._functorch.pyfunctorch import coerce_cinterpreter
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import Function, _SingleLevelFunction

from ._fast_apply import apply


def call(function: type[Function], args):
    """`function` of args, at the level that is innermost now"""
    args = _each(unwrap_if_dead, args)
    top = peek_interpreter_stack()
    if top is None:
        return _eager(function, args)
    interpreter = coerce_cinterpreter(top)
    return _LEVELS[interpreter.key()](interpreter, function, args)


def _each(change, values):
    """values, a tuple or one of them, with `change` made to its tensors"""
    if isinstance(values, tuple | list):
        return [change(v) if isinstance(v, torch.Tensor) else v for v in values]
    return change(values)


def _eager(function, args):
    may_be_dual = forward_ad._current_level >= 0 or torch.compiler.is_compiling()  # in a graph, the level is not there
    if may_be_dual and any(t is not None for t in _tangents(args)):
        return _own(function, "dual", _dual).apply(*args)
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
        return function.apply(*args)
    return function.forward(*args)


def _own(function, name, make):
    """What `make` makes of a Function, made once"""
    if name not in vars(function):
        setattr(function, name, make(function))
    return getattr(function, name)


def is_functionalized() -> bool:
    """Whether any of the levels is `functionalize`."""
    return any(level.key() == TransformType.Functionalize for level in get_interpreter_stack() or ())


# ---- forward mode ---------------------------------------------------------------------------------------------------


def _tangents(args):
    """The tangent of each of args that has one, at this level; None for the others. To forward_ad, all levels are 0:
    it has no other, and those of torch.func are told apart by their wrappings."""
    if not torch._C._is_fwd_grad_enabled():
        return [None] * len(args)
    return [
        forward_ad.unpack_dual(a, level=0).tangent if isinstance(a, torch.Tensor) and a.is_floating_point() else None
        for a in args
    ]


def _dual(function):
    """`function` with a jvp, as torch wants it, for eager forward mode: there the backward's node keeps dual tensors, so
    that it has a tangent, too. It cannot be in `function`, or Dynamo would refuse that."""

    class Dual(function):
        @staticmethod
        def setup_context(ctx, inputs, output):
            function.setup_context(ctx, inputs, output)
            ctx.call = inputs, output

        @staticmethod
        def jvp(ctx, *tangents):
            inputs, output = ctx.call
            del ctx.call  # which has an output of this very node
            primals = _each(lambda a: forward_ad.unpack_dual(a, level=0).primal, inputs)
            return function.tangent(primals, tangents, output)

    return Dual


def _duals(outputs, tangents, wrap):
    if isinstance(outputs, tuple):
        return tuple(_duals(y, t, wrap) for y, t in zip(outputs, tangents or (None,) * len(outputs)))
    return wrap(outputs) if tangents is None else forward_ad.make_dual(outputs, tangents, level=0)


def _jvp(interpreter, function, args):
    level = interpreter.level()
    duals = _each(interpreter._cptr.lift, args)
    primals, tangents = (_each(lambda a: _unwrap_for_grad(a, level), values) for values in (duals, _tangents(duals)))
    with interpreter.lower():
        y = apply(function, *primals)
        tangents = function.tangent(primals, tangents, y) if any(t is not None for t in tangents) else None
    return _duals(y, tangents, lambda y: _wrap_for_grad(y, level))


# ---- the others -----------------------------------------------------------------------------------------------------


def _vmap(interpreter, function, args):
    level = interpreter.level()
    values, dims = zip(*(_unwrap_batched(a, level) if isinstance(a, torch.Tensor) else (a, None) for a in args))
    with interpreter.lower():
        if all(d is None for d in dims):
            return apply(function, *values)
        outputs, out_dims = function.batch(interpreter.batch_size(), dims, values)
    if not isinstance(outputs, tuple):
        return _add_batch_dim(outputs, out_dims, level)
    return tuple(y if d is None else _add_batch_dim(y, d, level) for y, d in zip(outputs, out_dims))


def _grad(interpreter, function, args):
    with enable_single_level_autograd_function():
        return _own(function, "recorder", _recorder).apply(*_each(interpreter._cptr.lift, args))


def _recorder(function):
    """`function` as a node of the level that is innermost when it is applied"""

    class Recorder(_SingleLevelFunction):
        @staticmethod
        def forward(*args):
            interpreter = coerce_cinterpreter(peek_interpreter_stack())
            level = interpreter.level()
            values = _each(lambda a: _unwrap_for_grad(a, level), args)
            # a Function's forward runs without either mode; what is below decides for itself
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), interpreter.lower():
                y = apply(function, *values)
            y = _each(lambda y: _wrap_for_grad(y, level), y)
            return tuple(y) if isinstance(y, list) else y

        setup_context, backward = staticmethod(function.setup_context), staticmethod(function.backward)

    Recorder.__name__ = function.__name__
    return Recorder


def _functionalize(interpreter, function, args):
    values = _unwrap_all_tensors_from_functional(args, reapply_views=interpreter.functionalize_add_back_views())
    with interpreter.lower():
        y = apply(function, *values)
    return _wrap_all_tensors_to_functional(y, interpreter.level())


_LEVELS = {
    TransformType.Vmap: _vmap,
    TransformType.Grad: _grad,
    TransformType.Jvp: _jvp,
    TransformType.Functionalize: _functionalize,
}
