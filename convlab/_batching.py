"""What vmap makes of a Function: one call for all of the batch, which is folded into a dimension there is.

A rule is the class method `batch(size, dims, args)` of a Function: `dims` has the batch's dimension of each of args,
None where it has none. It returns what the Function returns, and the batch's dimension of each output.
"""

from typing import NamedTuple

import torch

from ._fast_apply import apply


def elementwise(function, size, dims, args):
    """For tensors of one shape: the batch is one more dimension of them."""
    places = {d for d, a in zip(dims, args) if isinstance(a, torch.Tensor)}
    if len(places) > 1:
        places, args = {0}, [first(a, d, size) if isinstance(a, torch.Tensor) else a for d, a in zip(dims, args)]
    outputs, (place,) = apply(function, *args), places
    return outputs, (place,) * len(outputs) if isinstance(outputs, tuple) else place


def image_by_image(function, size, dims, args):
    """For tensors [N, C, H, W] of which each image stands alone: the batch is folded into N."""
    outputs = apply(
        function, *(fold(first(a, d, size), 0) if isinstance(a, torch.Tensor) else a for d, a in zip(dims, args))
    )
    if isinstance(outputs, tuple):
        return tuple(unfold(y, size, 0) for y in outputs), (0,) * len(outputs)
    return unfold(outputs, size, 0), 0


def channel_by_channel(function, size, dims, args):
    """dy [N, K, P, Q] -> db [K]: the batch is folded into K."""
    return unfold(apply(function, fold(first(args[0], dims[0], size), 1)), size, 0), 0


def first(t, dim, size):
    """t with the batch as its first dimension, repeated if it has none"""
    return t.expand(size, *t.shape) if dim is None else t if dim == 0 else t.movedim(dim, 0)


def fold(t, axis, groups=1):
    """t [B, ...] with B inside of dimension `axis` of the rest, inside of its `groups` groups: groups x B x others"""
    if groups == 1:
        return (t.movedim(0, axis) if axis else t).flatten(axis, axis + 1)
    inside = t.unflatten(axis + 1, (groups, t.shape[axis + 1] // groups)).movedim(0, axis + 1)
    return inside.flatten(axis, axis + 2)


def unfold(t, size, axis, groups=1):
    """What `fold` folded: [B, ...]"""
    others, before, after = t.shape[axis] // (groups * size), t.shape[:axis], t.shape[axis + 1 :]
    if groups == 1:
        inside = t.reshape(*before, size, others, *after)
        return inside.movedim(axis, 0) if axis else inside
    inside = t.reshape(*before, groups, size, others, *after)
    return inside.movedim(axis + 1, 0).flatten(axis + 1, axis + 2)


# ---- convolution ----------------------------------------------------------------------------------------------------


class Role(NamedTuple):
    """What a tensor is in a convolution: which of its dimensions are n, c and k, and which one is made of groups."""

    axes: dict[str, int]
    grouped: str

    def place(self, letter, groups):
        """(axis, groups) of `fold` for this letter, "g" for a batch that becomes groups; None if the tensor has no such
        dimension."""
        if letter == "g":
            return self.axes[self.grouped], 1
        return (self.axes[letter], groups if letter == self.grouped else 1) if letter in self.axes else None


X = Role({"n": 0, "c": 1}, "c")
W = Role({"k": 0, "c": 1}, "k")
Y = Role({"n": 0, "k": 1}, "k")
BIAS = Role({"k": 0}, "k")


def convolution(inputs, outputs, pass_):
    """For pass number `pass_` of a convolution: two of x [N, C, H, W], w [K, C/groups, R, S] and y [N, K, P, Q] make
    the third.

    A batch of one of the two is folded into the dimension that the other has not: n, c or k. A batch of both becomes
    groups, for which the CPU takes 0.2 to 1.5 times as long as for one call after the other. These are left to an
    algorithm that was named, which may be for few groups or channels, but not for few images.
    """

    def rule(function, size, dims, args):
        arguments = args[-1]
        groups = arguments.geometry[8]
        one = dims[0] is not None
        other = any(d is not None for d in dims[1 : len(inputs)])  # a bias goes with its w
        letter = "g" if one and other else _only_in(*inputs[:2]) if one else _only_in(inputs[1], inputs[0])
        if arguments.algo[pass_] > 0 and letter != "n":
            return _one_by_one(function, size, dims, args)
        if letter == "g":
            arguments = arguments._replace(geometry=(*arguments.geometry[:8], groups * size))

        def folded(t, dim, role):
            place = role.place(letter, groups)
            return t if t is None or place is None else fold(first(t, dim, size), *place)

        results = apply(function, *map(folded, args, dims, inputs), *args[len(inputs) : -1], arguments)
        places = [role.place(letter, groups) for role in outputs]
        if not isinstance(results, tuple):
            return unfold(results, size, *places[0]), 0
        unfolded = (t if place is None else unfold(t, size, *place) for t, place in zip(results, places))
        return tuple(unfolded), tuple(place and 0 for place in places)

    return rule


def _only_in(role, other):
    (letter,) = role.axes.keys() - other.axes.keys()
    return letter


def _one_by_one(function, size, dims, args):
    results = [apply(function, *(a if d is None else a.select(d, i) for a, d in zip(args, dims))) for i in range(size)]
    if not isinstance(results[0], tuple):
        return torch.stack(results), 0
    return tuple(map(torch.stack, zip(*results))), (0,) * len(results[0])
