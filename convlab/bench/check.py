"""Outputs against float64, before anything is timed: a wrong kernel has no speed."""

import torch

from .case import LAYOUTS, OURS


class Wrong(RuntimeError):
    """convlab's outputs of a case are not what they should be; the message says in what."""


def outputs_of(result):
    """What a call returned, as a list of tensors."""
    return [result] if isinstance(result, torch.Tensor) else list(result)


def error_of(outputs, reference):
    """The largest difference from `reference` (float64), relative to the reference's largest element; of several
    outputs the worst."""
    worst = 0.0
    for output, expected in zip(outputs, reference, strict=True):
        if output.shape != expected.shape:
            raise Wrong(f"an output of {tuple(output.shape)} where {tuple(expected.shape)} is expected")
        difference = (output.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-300)
        worst = max(worst, float("inf") if difference.isnan() else difference.item())
    return worst


def check(case, results, reference):
    """{contestant: its error}. Raises Wrong if convlab's is more than twice torch's worst, or its outputs lie in
    another layout.

    results: {contestant: list of tensors}, convlab's among them.
    """
    errors = {name: error_of(outputs, reference) for name, outputs in results.items()}
    bound = 2 * max((error for name, error in errors.items() if name != OURS), default=0) + case.slack
    if not errors[OURS] <= bound:
        raise Wrong(f"its error against float64 is {errors[OURS]:.2e}, more than twice torch's: {bound:.2e}")
    memory_format = LAYOUTS[case.layout]
    for output in results[OURS]:
        if not case.grad and output.dim() == 4 and not output.is_contiguous(memory_format=memory_format):
            raise Wrong(f"its output {tuple(output.shape)} has strides {output.stride()}, which is not {case.layout}")
    return errors
