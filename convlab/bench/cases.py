"""All cases, by kind."""

from . import activations, convolutions, overhead, pooling, steps

KINDS = ("conv", "pool", "activation", "step")  # of the CPU's benchmark; "overhead" is one of its own


def cases_of(kind, algo="auto", compiled=True):
    """The cases of a kind. algo: what convlab's convolutions run; compiled: whether torch.compile takes part in
    training steps."""
    if kind == "conv":
        return convolutions.cases(algo)
    if kind == "step":
        return steps.cases(algo, compiled)
    return {"pool": pooling, "activation": activations, "overhead": overhead}[kind].cases()
