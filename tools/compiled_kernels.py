"""What nvcc made of the kernels, read out of the library that it built: registers, shared memory, stack, and the SASS
of loops.

    python -m tools.compiled_kernels [--write]      the kernels in convlab/_C.so; --write renews the tables in convlab/explain

The library keeps, for each kernel and architecture, what `ptxas -v` printed when it was compiled: nothing is compiled
again. A kernel whose stack is 0 has no spills, for that is where spills go. Needs cuobjdump and nvdisasm: the CUDA
toolkit's, or PyPI's nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm.
"""

import argparse
import functools
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from convlab import toolchain
from convlab._build_info import build_info
from convlab.explain.compiled import HERE as TABLES
from convlab.explain.compiled import NoTools, resources
from convlab.explain.compiled import sass as sass_of
from convlab.explain.sass import profile
from tools import run

sass = functools.lru_cache(2)(sass_of)  # half a minute each
ROOT = Path(__file__).resolve().parent.parent
TABLED_ARCHS = ("8.0", "9.0")  # toolchain.DEFAULT_ARCHS: what the table keeps of what a build may hold


def table_of(nvcc_version: str) -> Path:
    return TABLES / "nvcc-{}.{}.json".format(*toolchain.numbers(nvcc_version))


def as_table(found) -> dict[str, dict[str, list[int]]]:
    """What is compared and kept: kernel -> architecture -> [registers, shared]."""
    table = {}
    for arch in TABLED_ARCHS:
        for kernel, r in found.get(arch, {}).items():
            table.setdefault(kernel, {})[arch] = [r.registers, r.shared]
    return dict(sorted(table.items()))


def write(table, path):
    # a kernel a line, for reviews
    lines = [f"  {json.dumps(kernel)}: {json.dumps(by_arch)}" for kernel, by_arch in table.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_profiles(library, path):
    """What machine code does a trip of its loop, of the convolutions' kernels: what predicted times are made of."""
    table = {}
    for arch in TABLED_ARCHS:
        for kernel, lines in sass(library, arch).items():
            name = kernel.replace("> >", ">>")
            if not any(word in name for word in ("double", "pool", "relu")):
                table.setdefault(name, {})[arch] = profile(lines)
    lines = [f"  {json.dumps(name)}: {json.dumps(table[name], separators=(',', ':'))}" for name in sorted(table)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


# ---- loops
# ------------------------------------------------------------------------------------------------------------


class Loop(NamedTuple):
    instructions: int
    multiply_adds: int  # FFMA, or HMMA of tensor cores
    opcodes: Counter
    before_loads: (
        int  # of these, that come before the last load from device memory: while it is under way, the others are left
    )

    @property
    def share(self) -> float:
        return self.multiply_adds / self.instructions


def main_loop(sass: list[str], product: str = "FFMA") -> Loop | None:
    """The loop with the most FFMA, or HMMA, among those that have no other loop with such inside. `sass`: a kernel's
    lines."""
    addresses, opcodes, backward = [], [], []
    for line in sass:
        match = re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?);", line)
        if not match:
            continue
        address = int(match.group(1), 16)
        target = re.search(r"0x([0-9a-f]+)\s*$", match.group(3)) if match.group(2).startswith("BRA") else None
        if target and int(target.group(1), 16) < address:
            backward.append((int(target.group(1), 16), address))
        addresses.append(address)
        opcodes.append(match.group(2).split(".")[0])

    loops = {}
    for first, last in backward:
        body = [opcode for address, opcode in zip(addresses, opcodes) if first <= address <= last]
        if product in body:
            loads = [i for i, opcode in enumerate(body) if opcode in ("LDG", "LDGSTS")]
            loops[first, last] = Loop(
                len(body), body.count(product), Counter(body), body[: max(loads, default=0)].count(product)
            )
    innermost = [
        loop
        for (first, last), loop in loops.items()
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in loops)
    ]
    return max(innermost, key=lambda loop: loop.multiply_adds, default=None)


def main_loops(library, arch, product: str = "FFMA") -> dict[str, Loop]:
    """kernel -> its main loop, of those that have one"""
    loops = {kernel: main_loop(lines, product) for kernel, lines in sass(library, arch).items()}
    return {kernel: loop for kernel, loop in sorted(loops.items()) if loop}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", nargs="?", default=ROOT / "convlab" / "_C.so")
    parser.add_argument("--nvcc", help="the version that built it; default: what the build recorded")
    parser.add_argument("--write", action="store_true", help="renew the table in convlab/explain")
    args = parser.parse_args()
    if args.nvcc is None:
        args.nvcc = build_info()["nvcc"] or parser.error(
            "convlab was built without nvcc: build it with CONVLAB_CUDA=1 first"
        )
    try:
        found = resources(args.library)
    except NoTools as error:
        sys.exit(f"compiled_kernels: {error}")
    for arch, kernels in found.items():
        for kernel, r in sorted(kernels.items()):
            print("{}  {:3} registers  {:6} bytes shared  {:4} bytes stack  {}".format(arch, *r, kernel))
    newest = max(found, key=toolchain.numbers)
    for product in ("FFMA", "HMMA", "HGMMA"):
        for kernel, loop in main_loops(args.library, newest, product).items():
            common = " ".join("{} {}".format(*n) for n in loop.opcodes.most_common(6))
            print(f"{newest}  {loop.share:6.1%} {product} of {loop.instructions:4} instructions  {kernel}  {common}")
    if args.write:
        missing = [arch for arch in TABLED_ARCHS if arch not in found]
        if missing:
            sys.exit(
                "compiled_kernels: the library has no {}: build it with TORCH_CUDA_ARCH_LIST='{}'".format(
                    ", ".join(missing), ";".join(TABLED_ARCHS)
                )
            )
        write(as_table(found), table_of(args.nvcc))
        profiles = table_of(args.nvcc).with_stem(table_of(args.nvcc).stem.replace("nvcc", "sass"))
        write_profiles(args.library, profiles)
        print("wrote", table_of(args.nvcc).relative_to(ROOT), "and", profiles.relative_to(ROOT))


if __name__ == "__main__":
    run(main)
