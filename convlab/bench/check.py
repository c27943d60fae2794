"""Outputs against float64, before anything is timed: a wrong kernel has no speed."""

from .._measure import Wrong, error_of
from .case import LAYOUTS, OURS


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
