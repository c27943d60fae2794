"""What kernels ask of memory, as the simulator counts it, in the columns of the notes on top of csrc/kernels/*.cu.

x, w, dy, winners  how often each byte of the tensor is read, on average (winners: of max pooling, a byte each)
positive           the same: whether leaky ReLU's x was, a bit each
workspace          bytes read and written there, over those of the tensors together
sectors            of 32 bytes, moved by a request of a warp to global memory; at least: what the same bytes could do
                   with
conflicts          wavefronts of shared memory over the least that the same bytes could take: 1 is free of bank
                   conflicts
shared             bytes of shared memory read for each multiply-add
"""

import json
from pathlib import Path

from ..explain.counting import Counted
from ..simulator import TrafficTable

TENSORS = {
    "input": "x",
    "weight": "w",
    "grad_output": "dy",
    "offsets": "winners",
    "positive": "positive",
}  # what the simulator calls them -> column
COLUMNS = (*TENSORS.values(), "workspace", "sectors", "at least", "conflicts", "shared")
NAME_WIDTH = 21  # of a row's name: the layer and the pass

# What was counted of convlab's kernels, which tools/kernel_notes.py writes: file -> rows of layer, pass and columns.
COUNTS = Path(__file__).with_name("kernel_counts.json")


def numbers_of(traffic: TrafficTable, sizes: dict[str, int], multiply_adds: int = 0) -> dict[str, float]:
    """By column; those that have none, are left out. sizes: bytes of the tensors by the simulator's names."""
    counted = Counted(traffic)
    numbers = {column: counted.requested(memory) / sizes.get(memory, 1) for memory, column in TENSORS.items()}
    numbers["workspace"] = counted.requested_by_tensor.get("workspace", 0) / sum(sizes.values())
    numbers["sectors"], numbers["at least"] = counted.sectors_a_request, counted.least_sectors_a_request
    numbers["conflicts"] = counted.conflicts or 0
    if multiply_adds:
        numbers["shared"] = counted.shared_bytes_read / multiply_adds
    return {column: number for column, number in numbers.items() if number}


def digits(number: float) -> str:
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f}"


def table(rows: dict[str, dict[str, str]], width: int = NAME_WIDTH) -> list[str]:
    """Lines of text: the columns that have numbers, a row for each name."""
    columns = [column for column in COLUMNS if any(column in cells for cells in rows.values())]
    lines = [("", {column: column for column in columns}), *rows.items()]
    return [
        (f"{name:{width}}" + "".join(f"{cells.get(c, ''):>{max(len(c), 4) + 3}}" for c in columns)).rstrip()
        for name, cells in lines
    ]


# An access is worth a word from so many times the least on, and so much above it a request, if it is such a part of all.
_WASTEFUL, _ABOVE, _OF_ALL = 2.0, 1.5, 0.1
_MOST_ADVICE = 4


def advice(traffic: TrafficTable) -> list[str]:
    """In words, the lines whose accesses are far from the least, the most expensive first."""
    found = []
    for shared in (False, True):
        rows = [row for row in traffic if (row.space == "shared") == shared]
        cost = {True: lambda row: row.wavefronts, False: lambda row: row.sectors}[shared]
        total = sum(map(cost, rows))
        for row in rows:
            least = max(_WASTEFUL * row.ideal, row.ideal + _ABOVE * row.requests, _OF_ALL * total)
            if row.requests and cost(row) >= least:
                found.append((cost(row) - row.ideal, _advice(row, cost(row), shared)))
    return [words for _, words in sorted(found, key=lambda pair: -pair[0])[:_MOST_ADVICE]]


def _advice(row, cost: int, shared: bool) -> str:
    verb = {"read": "reads of", "write": "writes to", "atomic": "atomics on"}[row.access]
    where = f"{row.file}:{row.line}: {verb} '{row.memory}'"
    far, least = digits(cost / row.requests), digits(row.ideal / row.requests)
    apart = f": neighbouring threads are {row.apart} bytes apart" if row.apart else ""
    if shared:
        return f"{where} take {far} turns at the banks of shared memory where {least} would do{apart}"
    return f"{where} move {far} sectors a request where {least} would do{apart}"


def noted(source: str) -> dict[tuple[str, str], dict[str, float]]:
    """What was counted of a file of csrc/kernels: (layer, pass) -> column -> number. Empty if it was not counted."""
    rows = json.loads(COUNTS.read_text()).get(source, [])
    return {(row.pop("layer"), row.pop("pass")): row for row in rows}


def lines_of(counted: dict[tuple[str, str], dict[str, float]]) -> list[str]:
    """`noted` as the lines of text that stand on top of the kernels."""
    return table(
        {f"{layer:12}{pass_}": {c: digits(n) for c, n in row.items()} for (layer, pass_), row in counted.items()},
        NAME_WIDTH,
    )
