"""An explanation as text. Every figure says what it is: [modelled], [counted] by the simulator, [compiled], or
[published]."""

import re
import textwrap

from .explanation import Bound, CpuRung, Explanation, Pass, Rung
from .multiplied import Multiplied

WIDTH = 120
RESOURCES = {
    "issue": "the issue of instructions",
    "fma": "multiply-adds",
    "tensor": "products on the tensor cores",
    "l1": "L1 caches and shared memory",
    "l2": "the L2 cache",
    "memory": "memory",
    "latency": "waiting in warps that are too few to hide it",
    "launches": "launches",
}
ROOFS = {"memory": "memory", "caches": "L1 caches and shared memory"}


def rendered(e: Explanation) -> str:
    """The whole of it."""
    lines = (*head(e), *(line for p in e.passes for line in ("", *_pass(e, p))))
    return "\n".join(part.rstrip() for line in lines for part in _folded(line))


def _folded(line: str) -> list[str]:
    """A sentence in lines of a terminal's width; pictures and tables, which have runs of spaces, as they are."""
    if len(line) <= WIDTH or re.search(r"[│┌└]|\S   ", line):
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def head(e: Explanation):
    """The problem and the GPU, a line each."""
    p, gpu = e.problem, e.gpu
    rest = [
        f"{name} {_axes(value)}"
        for name, value, usual in (
            ("stride", p.stride, (1, 1)),
            ("padding", p.padding, (0,) * 4),
            ("dilation", p.dilation, (1, 1)),
        )
        if value != usual
    ]
    rest += [f"{p.groups} groups"] * (p.groups > 1) + [str(p.dtype).removeprefix("torch.")]
    yield f"{e.layer + ': ' if e.layer else ''}x {_shape(p.x)}, w {_shape(p.w)} -> y {_shape(p.y)}, {', '.join(rest)}"
    if e.transposed:
        yield f"of a transposed convolution of {_shape(p.y)} to {_shape(p.x)}: its forward is dgrad here, its gradient to the input forward"
    if p.x[2] == p.w[2] == 1 < p.w[3]:
        yield _one_dimension(p)
    if not any(one.rungs for one in e.passes):
        return
    yield (
        f"{gpu.name}: compute capability {gpu.capability}, {gpu.sms} multiprocessors at {gpu.clock:g} GHz, {gpu.peak / 1e12:.1f} TFLOP/s of float32, "
        f"{gpu.bandwidth:,g} GB/s, L2 cache {gpu.l2} MB  [{gpu.said}]"
    )


def _one_dimension(p) -> str:
    """What windows of a row share, and how often a filter is used."""
    taps, stride, dilation, outputs = p.w[3], p.stride[1], p.dilation[1], p.y[3]
    shared = max(0, taps - stride // dilation) if stride % dilation == 0 else 0
    apart = f"{taps} elements" + (f", {dilation} apart" if dilation > 1 else "")
    return (
        f"one dimension, as images of height 1: windows of {apart}, begin every {stride}, and share {shared} elements "
        f"with the next; a filter is used for {outputs:,} windows of each image  [modelled]"
    )


def _pass(e, p: Pass):
    """The lines of a pass."""
    work, bound = p.work, p.bound
    yield f"{p.name.upper()}   auto takes {p.chosen}" if p.rungs else p.name.upper()
    roof = f". Bound by {_roof(bound, bound.roof)}: {_us(bound.microseconds)} ({_roofs(bound)})" if p.rungs else ""
    yield (
        f"  tap by tap, {_si(work.flops)}FLOP and at least {_si(work.bytes)}B: {work.intensity:.1f} FLOP a byte{roof}"
        "  [modelled]"
    )
    yield f"  unrolled, x is {_si(work.unrolled)}B: each element {work.replication:.1f} times  [modelled]"
    if table := list(launch_table(p)):
        yield ""
        yield from ("  " + line for line in table)
    for rung in p.rungs:
        yield ""
        yield f"  {rung.algorithm}: {rung.technique}"
        if rung.refused:
            yield f"    not for this: it {rung.refused}"
            continue
        if rung.plan["precision"]:
            yield f"    products in {rung.plan['precision']}" + (
                "; auto waits for a gpu-report that shows it right there" if rung.plan["gated"] else ""
            )
        title, *drawn = str(rung.picture).split("\n")
        yield from ("    " + line for line in (title + "  [modelled]", *drawn))
        if rung.counted:
            yield from ("    " + line for line in counts(p, rung))

    if not p.cpu:
        return
    yield ""
    yield f"  On this CPU auto takes {p.chosen_on_cpu}  [modelled]"
    for rung in p.cpu:
        yield f"    {_cpu_line(rung)}"
        if rung.multiplied:
            yield f"      {_multiplied_line(rung.multiplied)}"


def _multiplied_line(m: Multiplied) -> str:
    """What Winograd saves, and what it pays."""
    products, definition, additions = (_si(n).strip() for n in (m.products, m.definition, m.additions))
    return (
        f"{products} products for the {definition} multiplications of the definition, {m.saved:.2f} times fewer, "
        f"and {additions} additions of transformations  [modelled]"
    )


def _cpu_line(rung: CpuRung) -> str:
    """How an algorithm of the CPU does a pass."""
    if rung.refused:
        return f"{rung.algorithm}: not for this: it {rung.refused}"
    plan = rung.plan
    images, rows = plan["strip"]
    parts = [f"{plan['pieces']} piece(s) of work with kernels for {plan['kernels']}"]
    parts += [f"strips of {images} image(s) x {rows} rows"] * bool(rows) + [f"{plan['slices']} slices"] * (
        plan["slices"] > 1
    )
    parts += [f"{_si(plan['workspace'])}B together, {_si(plan['scratch'])}B a thread"] * bool(plan["workspace"])
    return f"{rung.algorithm}: {rung.technique}: {', '.join(parts)}"


def launch_table(p: Pass):
    """A line of figures a launch, the kernel below it: template arguments take half a terminal's width. No line at all
    where no rung does the pass."""
    if not any(rung.launches for rung in p.rungs):
        return
    heads = [
        "algorithm",
        "grid",
        "block",
        "registers",
        "shared",
        "blocks/SM",
        "occupancy",
        "waves",
        "last full",
        "wasted",
    ]
    rows, kernels, sources = [heads], [""], {}
    for rung in p.rungs:
        for i, launch in enumerate(rung.launches):
            known = [str(launch.registers), f"{launch.shared:,}"] if launch.compiled else ["?", "?"]
            w = launch.waves
            waves = [str(w.blocks_at_once), _percent(w.occupancy), str(w.waves), _percent(w.tail)] if w else ["?"] * 4
            wasted = "" if i or rung.wasted is None else _percent(rung.wasted)
            name = rung.algorithm if not i else ""
            rows.append([name, _shape(launch.grid), _shape(launch.block), *known, *waves, wasted])
            kernels.append(f"  {launch.kernel}" + (f" x {launch.times}" if launch.times > 1 else ""))
            sources[launch.compiled] = None
    for line, kernel in zip(_columns(rows), kernels):
        yield line
        if kernel:
            yield kernel
    yield "registers and static shared memory: [compiled], " + "; ".join(
        who or "of the kernels with ?, unknown: not in the recorded table" for who in sources
    )
    yield "all other figures: [modelled]"


def counts(p: Pass, rung: Rung, by_line=True):
    """What the simulator counted of a rung, the table of source lines last."""
    c = rung.counted
    mark = "[counted]" if c.one_block_in == 1 else "[counted in a sample of the blocks]"
    asked = ", ".join(f"{name} {_si(size)}B" for name, size in c.requested_by_tensor.items())
    yield f"requested in global memory: {asked}; {c.global_bytes / p.work.bytes:.1f} times the least  {mark}"
    shared = (
        f"; shared memory: {c.wavefronts:,} wavefronts, {c.conflicts:.2f} times what is free of bank conflicts"
        if c.conflicts
        else ""
    )
    yield f"each request of a warp: {c.sectors_a_request:.2f} sectors of 32 bytes, ideal {c.least_sectors_a_request:.2f}{shared}  {mark}"
    yield f"no faster than {_us(rung.bound.microseconds)} ({_roofs(rung.bound)})  [modelled from the counts]"
    if rung.prediction:
        yield _prediction(rung)
    if by_line:
        yield from _lines_and_their_source(str(c.traffic).rstrip().split("\n"))


def _lines_and_their_source(table):
    """The source stands below a line's figures where there is no room behind them."""
    figures = 0
    for line in table:
        if line.endswith("ideal"):
            figures = len(line)
        if len(line) <= WIDTH - 4:
            yield line
        else:
            yield line[:figures].rstrip()
            yield f"{'':8}{line[figures:].strip()}"[: WIDTH - 4]


def _prediction(rung: Rung) -> str:
    """With what the record says, where it does."""
    p = rung.prediction
    measured = f"; an H200 took {_us(rung.measured_us)}  [measured]" if rung.measured_us else ""
    parts = ", ".join(f"{name} {_us(us)}" for name, us in p.by_resource.items())
    return (
        f"about {_us(p.microseconds)}, most of it {RESOURCES[p.bound_by]}, and {_us(p.without)} without that "
        f"({parts})  [modelled]{measured}"
    )


def _columns(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        yield "  ".join(
            f"{cell:<{w}}" if not i else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths))
        ).rstrip()


def _roofs(bound: Bound) -> str:
    return ", ".join(f"{_roof(bound, name)} {_us(us)}" for name, us in bound.by_resource.items())


def _roof(bound: Bound, name: str) -> str:
    """A resource in words."""
    return ROOFS.get(name) or (f"products in {bound.precision}" if bound.precision else "multiply-adds")


def _us(us: float) -> str:
    return f"{us:.3g} us" if us < 1000 else f"{us:,.0f} us"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.005 or not share else "<1%"


def _si(n: float) -> str:
    """With a unit's prefix and three digits: 30.7 M"""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g} {prefix}"
    return f"{n:g} "


def _shape(sizes) -> str:
    return " x ".join(map(str, sizes))


def _axes(values) -> str:
    return str(values[0]) if len(set(values)) == 1 else ",".join(map(str, values))
