"""What the algorithms with fewer multiplications save: counted from their tiles, not from a formula."""

from dataclasses import dataclass

from .. import _lab
from .._algorithms import Conv2dProblem
from .work import Work

TILES = {"winograd_2x2": 2, "winograd_4x4": 4}  # outputs along a side


@dataclass(frozen=True)
class Multiplied:
    """definition: multiplications tap by tap, for the taps that fall on the input. products: Winograd's
    multiplications; a tile at the edge counts only the points that it has. additions: those of the transformations of
    inputs, filters and outputs, on one thread."""

    definition: int
    products: int
    additions: int

    @property
    def saved(self) -> float:
        """How many multiplications of the definition there are for each product."""
        return self.definition / self.products


def multiplied(algorithm: str, problem: Conv2dProblem, pass_: str, work: Work) -> Multiplied | None:
    """None for an algorithm that multiplies as the definition does. The algorithm must support the problem."""
    if algorithm not in TILES:
        return None
    products, additions = _lab.winograd_counts(TILES[algorithm], problem.doing(pass_))
    return Multiplied(work.flops // 2, products, additions)
