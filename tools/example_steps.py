"""Writes examples/conv2d/README.md: the report that finds the bug, and what each step asks of memory, counted.

python -m tools.example_steps           prints it
python -m tools.example_steps --write   renews it
"""

import sys
from pathlib import Path

from convlab.testing import check_kernel
from convlab.testing.traffic import digits
from tools import run

ROOT = Path(__file__).resolve().parent.parent

FOLDER = ROOT / "examples" / "conv2d"
LAYER = "LeNet C3"
COLUMNS = ("x", "w", "sectors", "at least", "conflicts", "shared")


def report_of_the_bug() -> str:
    found = check_kernel(FOLDER / "0_with_a_bug.cuh", random_cases=0).findings
    return "\n".join(map(str, found)).replace(f"{ROOT}/", "")


def row_of(path: Path) -> str:
    """What a step asks of memory. Raises SystemExit if it is wrong."""
    report = check_kernel(path, random_cases=0)
    if not report.ok:
        raise SystemExit(str(report))
    what = path.read_text().splitlines()[0].removeprefix("// ").split(": ")[-1].rstrip(".")
    numbers = report.numbers[LAYER]
    return (
        f"| `{path.name}` | {what} | " + " | ".join(digits(numbers[c]) if c in numbers else "" for c in COLUMNS) + " |"
    )


def page() -> str:
    steps = sorted(FOLDER.glob("[1-9]*.cuh"))
    head = ["| file | | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 2) + "|"]
    return (
        f"""## A kernel with a bug, found, repaired, and made faster

`examples/conv2d/0_with_a_bug.cuh` is a tiled convolution as a first attempt might look. Check it:

```sh
python -m convlab.check examples/conv2d/0_with_a_bug.cuh
```

```
{report_of_the_bug()}
```

A thread that is done with a channel loads the next one's tile while others still read this one's: a barrier is missing. With it, and
then in three steps, for {LAYER} (x and w: how often each element is read; shared: bytes of shared memory read for a multiply-add;
conflicts: of its banks, 1 is none):

"""
        + "\n".join([*head, *map(row_of, steps)])
        + """

The last two columns say what to try next: neighbouring rows of the tile share banks, so give its rows another length.
"""
    )


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        (FOLDER / "README.md").write_text(page())
    else:
        print(page())


if __name__ == "__main__":
    run(main)
