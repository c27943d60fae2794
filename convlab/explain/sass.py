"""What the machine code of a kernel does a trip of its loop: instructions by the pipe they take, and the cycles that a
warp takes for it by itself.

The loop is the innermost one with the most multiply-adds. Where nvcc does not know how many trips it has it makes four
copies of it, for four trips at once, and three for what is left over: of short loops these are what runs.

How long a lone warp takes follows from who waits for whom: instructions issue in order, one a cycle, when what they read
is there. Loads from global memory take one of LATENCIES, so that a trip can be had for a load that the L1 cache, the L2
cache or memory answers.
"""

import re
from typing import NamedTuple

LATENCIES = (35, 270, 700)  # cycles of a load: from L1, from L2, from memory. H100, microbenchmarks: arXiv 2402.13499
SHARED_LATENCY, BARRIER = 30, 20
LONG = {"MUFU": 20, "I2F": 14, "F2I": 14, "S2R": 20, "LDC": 30, "ULDC": 10, "SHFL": 24, "VOTE": 10, "HMMA": 33}
USUAL = 5  # of whatever else: FFMA 4, integers 4 to 6
COPIES = 4  # that nvcc makes of a loop whose length it does not know

LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)(.*?);")
REGISTER = re.compile(r"\b(UR|R|UP|P)(\d+)\b")
MULTIPLY_ADDS = ("FFMA", "FADD", "FMUL", "HFMA2", "HADD2", "HMUL2", "DFMA", "FFMA2")
TENSOR = ("HMMA", "IMMA", "DMMA", "HGMMA")
WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


class Instruction(NamedTuple):
    address: int
    opcode: str  # with its modifiers
    operands: str
    predicate: str

    @property
    def name(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def bytes(self) -> int:
        """That a lane loads or stores."""
        if self.name == "LDSM":
            return 4 * int(self.opcode.rsplit(".", 1)[-1])
        return next((WIDTHS[part] for part in self.opcode.split(".")[1:] if part in WIDTHS), 4)


class Part(NamedTuple):
    """A trip of a loop, or code outside of it, by warp instructions: all; multiply-adds; on the tensor cores; loads and
    stores, of global memory (asynchronous copies are loads) and of shared memory, and the bytes a lane of each; cycles,
    of a warp alone, for each of LATENCIES."""

    instructions: int = 0
    multiply_adds: int = 0
    tensor: int = 0
    global_loads: int = 0
    global_load_bytes: int = 0
    global_stores: int = 0
    shared_loads: int = 0
    shared_load_bytes: int = 0
    shared_stores: int = 0
    shared_store_bytes: int = 0
    barriers: int = 0
    cycles: tuple[int, ...] = (0, 0, 0)


class Nest(NamedTuple):
    """A loop that loads. body: a trip of the innermost one. copies: of a shorter one that nvcc made of it, with as many
    less one behind it for what is left over. around: instructions of a trip of the loop around it, without those."""

    body: Part
    copies: int = 1
    around: int = 0


class Profile(NamedTuple):
    """A kernel. main: the loop with the most multiply-adds, or the innermost with products of tensor cores. fill: of a
    main loop that loads from shared memory alone, the one that brings the data there; of one on the tensor cores, the one
    in it that copies single elements, which main is without. once: what lies outside of all loops."""

    main: Nest
    fill: Nest | None
    once: Part


def profile(lines: list[str]) -> Profile:
    """Of a kernel, from cuobjdump's or nvdisasm's lines."""
    code = _instructions(lines)
    loops = _loops(code)
    bodies = {loop: [i for i in code if loop[0] <= i.address <= loop[1]] for loop in loops}
    loading = [
        loop
        for loop in loops
        if not any(_within(other, loop) for other in loops) and _count(bodies[loop], "LDG", "LDS", "LDGSTS")
    ]
    once = _part([i for i in code if not any(a <= i.address <= b for a, b in loops)], False)

    def weight(loop):
        body = bodies[loop]
        return _count(body, *MULTIPLY_ADDS) * (1 + bool(_count(body, "FFMA"))), len(body)

    if not loading:
        return Profile(Nest(_part(code, False)), None, Part())
    products = [loop for loop in loops if _count(bodies[loop], *TENSOR)]
    if products:
        return _of_products(min(products, key=lambda loop: loop[1] - loop[0]), loading, bodies, once)
    main = max(loading, key=weight)
    fills = (
        []
        if _count(bodies[main], "LDG", "LDGSTS")
        else [loop for loop in loading if _count(bodies[loop], "LDG", "LDGSTS")]
    )
    fill = max(fills, key=lambda loop: len(bodies[loop]), default=None)
    return Profile(_nest(main, bodies), _nest(fill, bodies) if fill else None, once)


def _of_products(main, loading, bodies, once: Part) -> Profile:
    """Of a loop on the tensor cores, in which copies of single elements have loops of their own."""
    copies = [loop for loop in loading if _within(loop, main) and _count(bodies[loop], "LDGSTS")]
    body = [i for i in bodies[main] if not any(a <= i.address <= b for a, b in copies)]
    fill = max(copies, key=lambda loop: len(bodies[loop]), default=None)
    return Profile(Nest(_part(body, True)), Nest(_part(bodies[fill], True)) if fill else None, once)


def _nest(loop, bodies) -> Nest:
    body = bodies[loop]
    parents = [other for other in bodies if _within(loop, other)]
    if not parents:
        return Nest(_part(body, True))
    parent = bodies[max(parents)]  # the innermost of them begins last
    kind = "LDS" if _count(body, "LDS") else "LDG"
    inside, around = _count(body, kind), _count(parent, kind)
    each = inside // COPIES
    if inside % COPIES or around - inside != (COPIES - 1) * each:
        return Nest(_part(body, True))
    rest = len(parent) - len(body) - (COPIES - 1) * len(body) // COPIES
    return Nest(_part(body, True), COPIES, max(rest, 0))


def _count(code, *names) -> int:
    return sum(i.name in names for i in code)


def _within(a, b):
    return a != b and b[0] <= a[0] and a[1] <= b[1]


def _instructions(lines) -> list[Instruction]:
    found = []
    for line in lines:
        if match := LINE.match(line):
            address, predicate, opcode, operands = match.groups()
            found.append(Instruction(int(address, 16), opcode, operands, predicate or ""))
    last = max((n for n, i in enumerate(found) if i.name not in ("NOP", "BRA")), default=-1)
    return found[: last + 1]  # behind it lies what fills a cache line


def _loops(code) -> list[tuple[int, int]]:
    """(first, last) addresses, each from the target of a branch back to that branch."""
    loops: dict[int, int] = {}
    for i in code:
        target = re.search(r"0x([0-9a-f]+)\s*$", i.operands) if i.name == "BRA" else None
        if target and int(target.group(1), 16) < i.address:
            first = int(target.group(1), 16)
            loops[first] = max(loops.get(first, 0), i.address)
    return sorted(loops.items())


def _part(code, repeats: bool) -> Part:
    names = [i.name for i in code]

    def bytes_of(*kinds):
        return sum(i.bytes for i in code if i.name in kinds)

    return Part(
        len(code),
        sum(name in MULTIPLY_ADDS for name in names),
        sum(name in TENSOR for name in names),
        _count(code, "LDG", "LDGSTS"),
        bytes_of("LDG", "LDGSTS"),
        names.count("STG"),
        _count(code, "LDS", "LDSM"),
        bytes_of("LDS", "LDSM"),
        names.count("STS"),
        bytes_of("STS"),
        names.count("BAR"),
        tuple(_cycles(code, latency, repeats) for latency in LATENCIES),
    )


def _cycles(code, latency: int, repeats: bool) -> int:
    """Of one trip, when as many as needed have gone before."""
    decoded = [_decoded(i, latency) for i in code]
    ready: dict[str, int] = {}
    now, marks = 0, []
    for _ in range(3 if repeats else 1):
        for reads, writes, takes in decoded:
            now = max(now + 1, *(ready.get(r, 0) for r in reads)) if reads else now + 1
            for r in writes:
                ready[r] = now + takes
        marks.append(now)
    return marks[-1] - marks[-2] if repeats else max(ready.values(), default=now)


def _decoded(i: Instruction, latency: int) -> tuple[list[str], list[str], int]:
    """(registers read, registers written, cycles until they are there)"""
    takes = (
        latency if i.name in ("LDG", "LD", "LDL", "ATOMG") else SHARED_LATENCY if i.name in ("LDS", "LDSM") else USUAL
    )
    takes = BARRIER if i.name == "BAR" else LONG.get(i.name, takes)
    if i.name == "HGMMA":  # 64 x N: as long as it keeps the tensor cores busy
        takes = int(re.findall(r"x(\d+)x", i.opcode)[0]) // 2
    operands = i.operands.split(",")
    kinds = [[f"{kind}{n}" for kind, n in REGISTER.findall(text)] for text in operands]
    stores = i.name in ("STG", "STS", "ST", "STL", "LDGSTS", "BRA", "EXIT", "BAR", "RED")
    written = 0 if stores else 2 if i.name.endswith("SETP") else 1
    writes = [r for kind in kinds[:written] for r in kind]
    reads = [r for kind in kinds[written:] for r in kind]
    if i.predicate:
        reads.append(i.predicate.lstrip("!"))
    if writes and i.name in ("LDG", "LDS", "LDSM", "LDC", "LD"):
        writes = _span(writes[0], max(i.bytes // 4, 1))
    elif writes and (".WIDE" in i.opcode or ".64" in i.opcode):
        writes = _span(writes[0], 2) + writes[1:]
    wide = []
    for text, kind in zip(operands[written:], kinds[written:]):
        if kind and ".64" in text:
            wide += _span(kind[-1], 2)
    if i.name == "STG" or i.name == "STS":
        wide += _span(kinds[-1][-1], max(i.bytes // 4, 1)) if kinds[-1] else []
    return reads + wide, writes, takes


def _span(register: str, count: int) -> list[str]:
    kind = register.rstrip("0123456789")
    first = int(register[len(kind) :])
    return [f"{kind}{first + n}" for n in range(count)]


def without_loops(lines: list[str]) -> Profile:
    """Of a kernel whose loops are for rare cases alone: they count once, as in longest_way()."""
    return Profile(Nest(_part(_instructions(lines), False)), None, Part())


def longest_way(lines: list[str]) -> int:
    """Instructions of a kernel on the longest way through its branches, which is what a warp issues at most that stays
    together. A loop counts once, so that this says much of kernels whose loops are for rare cases alone. Functions that
    it calls are left out: nvcc calls one for a division of numbers beyond the usual."""
    length: dict[int, int] = {}  # from an address to the end
    following = 0
    for i in reversed(_instructions(lines)):
        target = re.search(r"0x([0-9a-f]+)\s*$", i.operands) if i.name == "BRA" else None
        ways = [length.get(int(target.group(1), 16), 0)] if target else []  # of a branch back: none yet
        if i.predicate or i.name not in ("BRA", "EXIT", "RET"):
            ways.append(following)
        following = length[i.address] = 1 + max(ways, default=0)
    return following
