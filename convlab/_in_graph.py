"""A Function inside a transform of torch.func inside torch.compile.

Dynamo drops a Function's backward unless a tensor requires a gradient, which inside a transform none does (torch 2.14:
derivatives are zero, silently). A function allowed in the graph it does not look into: AOTAutograd calls it with the
transforms' levels in place, and traces what `.apply` does.
"""

import torch

from . import autograd


def _in_graph(function):
    @torch.compiler.allow_in_graph
    def apply_in_graph(*args):
        return function.apply(*args)

    return apply_in_graph


APPLY = {function.own_name(): _in_graph(function) for function in autograd.PRIMITIVES}
