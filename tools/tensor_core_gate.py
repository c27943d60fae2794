"""Which precisions and passes of the rungs on tensor cores are correct on a GPU: those that "auto" may take there.

python -m tools.tensor_core_gate              on a GPU, or else in the simulator: prints what is right, writes nothing
python -m tools.tensor_core_gate --write      on a GPU: writes csrc/kernels/tensor_core_gate.h, for the next build
"""

import argparse
import random
import re
import sys
from pathlib import Path

import torch

from tools import run

ROOT = Path(__file__).parent.parent
HEADER = ROOT / "csrc" / "kernels" / "tensor_core_gate.h"
ORDER = ("", "float16", "bfloat16", "tf32", "3xtf32")  # Precision of csrc/kernels/plan.h


def rows(gate: dict[tuple[str, str], bool], passes) -> list[int]:
    """The header's numbers: for each precision a bit per pass."""
    return [sum(1 << i for i, pass_ in enumerate(passes) if gate.get((name, pass_))) for name in ORDER]


def with_numbers(header: str, numbers: list[int], gate: str = "kTensorCoreGate") -> str:
    return re.sub(rf"({gate}\[\] = )\{{.*?\}}", rf"\1{{{', '.join(map(str, numbers))}}}", header)


def right(rung, precision: str, pass_: str, problems: int, device: str) -> str:
    """What is wrong with a rung's precision and pass; empty if every problem comes out right."""
    from tensor_core import check_conv, random_conv

    rng = random.Random(f"{precision} {pass_}")
    try:
        for _ in range(problems):
            conv = random_conv(rng, 40_000_000 if device == "cuda" else 100_000)
            for channels_last in (False, True):
                check_conv(conv, precision, channels_last, [pass_], device=device, rung=rung)
    except (AssertionError, RuntimeError) as error:
        return str(error)
    return ""


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--problems", type=int, default=None, help="of each precision and pass; default: 40, or 1 without a GPU"
    )
    parser.add_argument("--write", action="store_true", help="write the gate, on a GPU")
    args = parser.parse_args(argv)
    sys.path.insert(0, str(ROOT / "tests"))
    from tensor_core import PASSES, PRECISIONS, RUNG, WARPGROUP

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.write and device == "cpu":
        sys.exit("tensor_core_gate: --write needs a GPU: right results in the simulator prove nothing about a GPU")
    problems = args.problems or (40 if device == "cuda" else 1)
    header = HEADER.read_text()
    for rung, name in ((RUNG, "kTensorCoreGate"), (WARPGROUP, "kWarpgroupGate")):
        gate = {}
        for precision in PRECISIONS:
            for pass_ in PASSES:
                why = right(rung, precision, pass_, problems, device)
                gate[precision, pass_] = not why
                print(f"{rung.name:11} {precision:9} {pass_:8} {'wrong: ' + why if why else 'right'}")
        header = with_numbers(header, rows(gate, PASSES), name)
    if args.write and header == HEADER.read_text():
        print(f"{HEADER.relative_to(ROOT)} says so")
    elif args.write:
        HEADER.write_text(header)
        print(f"wrote {HEADER.relative_to(ROOT)}; the next build opens the gate")
    return 0


if __name__ == "__main__":
    run(main)
