"""How the Functions of autograd.py are called: who may want a derivative, which gradients a backward asks for, and what
outwits torch for speed.

Each trick has its gain beside it: CPU time of a call on 1 x 1 x 8 x 8 with one 3 x 3 filter, torch 2.14.1, with and
without it in turn, on a busy machine where everything takes about three times as long: read the ratios.
"""

import inspect
from typing import NamedTuple

import torch
from torch.autograd import Function, forward_ad

from . import simulator

_functorch_is_active = torch._C._are_functorch_transforms_active
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_engine_runs = torch._C._will_engine_execute_node
_unwrap_if_dead = torch._C._functorch.unwrap_if_dead
_grad_is_enabled, _is_compiling, _is_tracing = torch.is_grad_enabled, torch.compiler.is_compiling, torch._C._is_tracing


# ---- who may want a derivative --------------------------------------------------------------------------------------


def needs_autograd(*args) -> bool:
    """Whether anybody may want a derivative through a call with these arguments. The one place that decides it.

    `requires_grad` alone does not tell. Inside vmap it is always False, whatever is differentiated outside, and a
    tangent does not set it: with any of functorch's transforms active, or forward mode, _levels.py must see the call.
    And a tensor that a transform wrapped may outlive it (`vjp` calls backward when it is over), and then hides what its
    content requires. torch.jit.trace records operators; a Function is what no file can hold.
    """
    if forward_ad._current_level >= 0 or _functorch_is_active():
        return True
    if _grad_is_enabled():
        for a in args:
            if isinstance(a, torch.Tensor) and (a.requires_grad or (not _is_compiling() and _is_wrapped(a))):
                return _is_compiling() or not _is_tracing()
    return False


def is_watched(x) -> bool:
    """Whether somebody beside autograd is to see what torch itself does with x: a compiler, a trace, a transform, forward
    mode, a mode other than the simulator's, a subclass of torch.Tensor. Nothing may outwit torch then."""
    return (
        _is_compiling()
        or type(x) is not torch.Tensor
        or forward_ad._current_level >= 0
        or _functorch_is_active()
        or _is_wrapped(x)
        or torch._C._len_torch_dispatch_stack() > (simulator.current() is not None)
        or _is_tracing()
    )


def apply(function: type[Function], *args):
    """`function.apply(*args)`, or its forward alone where nobody can want a derivative: 7.4 us, not 27.6, for ReLU, and
    10.6, not 37.0, for conv2d."""
    return record(function, *args) if needs_autograd(*args) else function.forward(*args)


def record(function: type[Function], *args):
    """`function.apply(*args)`, also under transforms and in forward mode."""
    if not _functorch_is_active() and forward_ad._current_level < 0:
        if _is_compiling():
            return function.apply(*args)
        return function.at_once(*[_unwrap_if_dead(a) if isinstance(a, torch.Tensor) else a for a in args])
    # here, because these need what needs this, and the first torch._dynamo, which is there where a graph is compiled
    if torch.compiler.is_dynamo_compiling():
        from ._in_graph import CALL

        return CALL[function.own_name()](*args)
    from ._levels import call

    return call(function, args)


# ---- what a backward asks for ---------------------------------------------------------------------------------------


class _Patience:
    """How often to ask about leaves.

    torch answers "yes" for a leaf that torch.autograd.grad was given with an exception, which takes 14 us. So the input
    that got the last "no" comes first: where all but one are not asked for, that one is without a question. And where a
    call is small and `ENOUGH` answers were exceptions with no "no" among them, only every `ENOUGH`-th node asks again;
    for the others, what the forward call knew is taken for asked for.
    """

    ENOUGH, SMALL = 64, 1 << 12  # answers; elements of the incoming gradient

    def __init__(self):
        self.exceptions = 0  # since the last "no"; of all threads: it need not be exact
        self.refused = None  # the input that got it

    def is_out(self, dy) -> bool:
        if self.exceptions < self.ENOUGH or dy.numel() >= self.SMALL:
            return False
        self.exceptions += 1
        return self.exceptions % self.ENOUGH != 0


patience = _Patience()


def asked_for(ctx, dy, *tensors: int) -> list[bool]:
    """`ctx.needs_input_grad`, less what the running backward does not ask for, of the inputs with these numbers; all
    inputs before them must be tensors.

    `needs_input_grad` is as of the forward call: with trainable weights, `torch.autograd.grad(loss, x)` finds all of it
    True. torch knows which nodes it is about to run. What it cannot say counts as asked for: in a compiled graph, which
    is traced for all of them; in a backward called by hand, outside of a running engine.
    """
    needs = ctx.needs_input_grad
    needed = [needs[i] for i in tensors]
    if _is_compiling() or patience.is_out(dy):
        return needed
    left = [i for i, wanted in zip(tensors, needed) if wanted]
    if len(left) < 2:
        return needed
    left.sort(key=lambda i: i != patience.refused)
    asked = [i for i in left[:-1] if _will_run(ctx, i)]
    if not asked or _will_run(ctx, left[-1]):  # without any of them, this node would not run
        asked.append(left[-1])
    if len(asked) < len(left) and not _is_running(ctx):
        return needed
    return [i in asked for i in tensors]


def _is_running(ctx) -> bool:
    """Not where somebody calls a node by hand during the backward of another graph."""
    return torch._C._current_autograd_node() is ctx


def _will_run(ctx, i: int) -> bool:
    """Whether the node that takes the gradient of input i does."""
    try:
        will = _engine_runs(ctx.next_functions[i][0])
    except RuntimeError:
        patience.exceptions += 1
        return True
    if not will:
        patience.exceptions, patience.refused = 0, i
    return will


# ---- what outwits torch for speed -----------------------------------------------------------------------------------


def has_at_once(function: type[Function], setup_context, backward) -> None:
    """Gives it `at_once`, the `apply` of a Function that does forward and setup_context in one call, with no arguments to
    bind: what eager mode needs, and nothing else can use. A small conv2d's forward and backward take 0.89 of the time.
    It is what `Function.apply` calls, once it has unwrapped tensors that outlived a transform.

    setup_context, backward: its own, for eager mode. The engine calls the latter directly, not by BackwardCFunction's way
    to it: with a backward that calls its operators, 0.95 of the time."""
    forward = function.forward

    class AtOnce(function):
        @staticmethod
        def forward(ctx, *args):
            output = forward(*args)
            if simulator.libraries:
                ctx.simulation = simulator.current()
            setup_context(ctx, args, output)
            if ctx.non_differentiable:  # the engine would fill a tensor of zeros for each, as large as a mask
                ctx.set_materialize_grads(False)
            return output

        setup_context = Function.setup_context

    AtOnce.__name__ = function.__name__
    AtOnce._backward_cls.apply = backward
    function.at_once = super(Function, AtOnce).apply


class _Signature(inspect.Signature):
    def bind(self, *args, **kwargs):
        if kwargs or len(args) != len(self.parameters):
            return super().bind(*args, **kwargs)
        return _Bound(args, {})


class _Bound(NamedTuple):
    """What `.apply` wants of an inspect.BoundArguments"""

    args: tuple
    kwargs: dict

    def apply_defaults(self):
        pass


def binds_nothing(function: type[Function]) -> None:
    """`.apply` makes forward's signature and binds its arguments to it, for the sake of defaults, of which no forward
    here has any: 47 us instead of 108 for a recorded conv2d; 66 with a signature that is kept, and binds."""
    function.forward.__signature__ = _Signature(inspect.signature(function.forward).parameters.values())
