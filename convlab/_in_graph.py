"""A Function inside a transform of torch.func inside torch.compile.

Dynamo drops a Function's backward unless a tensor requires a gradient, which inside a transform none does (torch 2.14:
derivatives are zero, silently). A function allowed in the graph it does not look into: AOTAutograd calls it with the
transforms' levels in place, and traces what _levels.py does.
"""

import torch

from . import _levels, autograd
from . import _primitives as _primitives  # which makes some more


def _in_graph(function):
    @torch.compiler.allow_in_graph
    def call_in_graph(*args):
        return _levels.call(function, args)

    return call_in_graph


CALL = {function.own_name(): _in_graph(function) for function in autograd.PRIMITIVES}
