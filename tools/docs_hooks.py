"""What mkdocs fills into the pages of docs/: <!-- {{ word ... }} --> alone on a line becomes what a function here makes of
it, in place of what follows as far as <!-- end -->, if that is there: what a reader of the Markdown sees.

    {{ about RUNG }}                 the comment on top of its kernel
    {{ picture RUNG }}               a block of its launch over the matrices or planes of a layer, from its plan
    {{ code FILE | FROM | TO }}      the lines of a source file from the one that contains FROM to the next that contains TO
    {{ traffic RUNG }}               predicted and counted reads of its forward pass
    {{ ladder }}                     the table of algorithms, with what a layer took and read
    {{ include FILE }}               a file of the tree
    {{ bars }}                       the README's, of how fast it is

Numbers come from convlab.algorithms(), from launch plans, from the table of what the simulator counted, and
from the record of a GPU.
"""

import itertools
import re
from pathlib import Path

import torch

import convlab
from convlab.explain.prediction import MEASURED_ON, measured_us
from convlab.gpus import GPUS
from convlab.layers import NOTED, find
from convlab.testing.traffic import digits, noted
from tools import figures

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "csrc" / "kernels"
FILLED = re.compile(r"^<!-- \{\{(.+?)\}\} -->$(?:\n(?:(?!<!-- \{\{).*\n)*?<!-- end -->$)?", re.M)
RUNGS = {a.name: a for a in convlab.algorithms()}


def on_page_markdown(markdown, page, **_):
    def fill(match):
        word, _, rest = match[1].strip().partition(" ")
        try:
            return FILLERS[word](*[part.strip() for part in rest.split("|")] if rest else [])
        except Exception as error:
            raise RuntimeError(f"{page.file.src_uri}: {match[0]}: {error}") from error

    return FILLED.sub(fill, markdown)


# ---- text -------------------------------------------------------------------------------------------------------------


def about(name: str) -> str:
    """As it stands there."""
    lines = (KERNELS / f"conv2d_{name}.cu").read_text().splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("//"), lines)
    return "```text\n" + "\n".join(line.removeprefix("//").removeprefix(" ") for line in comment) + "\n```"


def code(file: str, begin: str, end: str) -> str:
    lines = (ROOT / file).read_text().splitlines()
    first = next((i for i, line in enumerate(lines) if begin in line), None)
    last = next((i for i in range(first or 0, len(lines)) if end in lines[i]), None) if first is not None else None
    if last is None:
        raise ValueError(f"{file} has no lines from {begin!r} to {end!r}")
    return f"`{file}`, line {first + 1}:\n\n```cpp\n" + "\n".join(lines[first : last + 1]) + "\n```"


def include(file: str) -> str:
    return (ROOT / file).read_text()


def bars() -> str:
    return figures.BARS.search((ROOT / "README.md").read_text())[0]


def ladder() -> str:
    """A rung's name leads to its page, once it has one; what was measured and counted is LeNet's second layer."""
    rows = ["| algorithm | technique | passes | time on an H200 | reads of x, w |", "| --- | --- | --- | --- | --- |"]
    for a in RUNGS.values():
        if "cuda" in a.backends:
            page = f"ladder/{a.name}.md"
            name = f"[`{a.name}`]({page})" if (ROOT / "docs" / page).exists() else f"`{a.name}`"
            counted = noted(f"conv2d_{a.name}.cu").get(("LeNet C3", "forward"), {})
            reads = ", ".join(digits(counted[t]) for t in ("x", "w") if t in counted)
            passes = ", ".join(sorted(a.passes_by_backend["cuda"]))
            rows.append(f"| {name} | {a.techniques['cuda']} | {passes} | {measured(a.name)} | {reads} |")
    images = next(layer.N for layer in NOTED if layer.name == "LeNet C3")
    return "\n".join(rows) + (
        "\n\nTime: measured, forward of LeNet's C3 for 1,024 images. Reads: counted by the simulator, the same layer for "
        f"{images} images, how often each element of x and of w is read from device memory."
    )


def measured(name: str) -> str:
    """Microseconds of LeNet's C3 on an H200, or nothing where no record has it"""
    for dtype, words in ((torch.float32, ""), (torch.bfloat16, " in bfloat16")):
        us = measured_us(find("lenet-c3@1024").problem(dtype), "forward", name, None, GPUS[MEASURED_ON])
        if us:
            return f"{us:.0f} us{words}"
    return ""


# ---- numbers
# ----------------------------------------------------------------------------------------------------------


def predicted(name: str, layer) -> dict[str, float]:
    """Reads of x and of w over their elements, forward, by counting on the picture. Empty where the picture does not
    tell."""
    plan = RUNGS[name].plan(layer.problem(), "forward")
    inside = layer.flops // (2 * layer.N * layer.K * layer.w[1])  # taps of a plane
    replication = inside / (layer.H * layer.W)  # of the unrolled input: taps that lie inside x
    if name == "direct":  # every output loads its window and its filter
        return {"x": layer.K * replication, "w": layer.N * inside / (layer.R * layer.S)}
    if name == "tiled":  # a block loads its input tile once for all the maps it makes; here one tile covers the plane
        return {"x": layer.K / plan["tile"][0]}
    if name == "im2col_gemm":  # unrolling reads x once for each tap; the product reads w once for each column of tiles
        return {"x": replication, "w": plan["grid"][0]}
    if any(plan["product"] or ()):  # each row of tiles unrolls x again, each column of tiles reads w again
        return {"x": replication * plan["grid"][1], "w": plan["grid"][0]}
    return {}


def traffic(name: str) -> str:
    lines = ["| layer | reads of | predicted | counted |", "| --- | --- | --- | --- |"]
    counts = noted(f"conv2d_{name}.cu")
    for layer in NOTED:
        counted = counts.get((layer.name, "forward"), {})
        foretold = predicted(name, layer) if counted else {}
        lines += [
            f"| {layer.name} | {t} | {digits(foretold[t]) if t in foretold else ''} | {digits(counted[t])} times |"
            for t in ("x", "w")
            if t in counted
        ]
    lines += [
        "",
        "Counted by the simulator, all columns (`python -m convlab.check --columns` says how to read them):",
        "",
    ]
    columns = list(dict.fromkeys(column for row in counts.values() for column in row))
    lines += ["| layer | pass | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 2) + "|"]
    lines += [
        f"| {title} | {pass_} | " + " | ".join(digits(row[c]) if c in row else "" for c in columns) + " |"
        for (title, pass_), row in counts.items()
    ]
    return "\n".join(lines)


# ---- pictures
# ---------------------------------------------------------------------------------------------------------

INK, PALE, TILE, HALO = "#333333", "#e8eef4", "#e07b39", "#f6cfae"


def rectangle(x, y, width, height, fill, title="", stroke=INK):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}" stroke="{stroke}"><title>{title}</title></rect>'


def words(x, y, text, anchor="middle"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="13" font-family="sans-serif" text-anchor="{anchor}" fill="{INK}">{text}</text>'


def picture(name: str) -> str:
    layer = next(layer for layer in NOTED if RUNGS[name].supports(layer.problem(), "forward")[0])
    plan = RUNGS[name].plan(layer.problem(), "forward")
    draw = matrices if any(plan["product"] or ()) else planes
    return f'<svg viewBox="0 0 720 300" width="720" role="img" aria-label="one block of {name}">{draw(name, layer, plan)}</svg>\n'


def matrices(name, layer, plan) -> str:
    """w times the unrolled input: a tile of the product, and the strips of both operands that it is made of."""
    (M, N, K), (tile_m, tile_n, tile_k) = plan["product"], plan["tile"]
    tall, long, deep = 60, 330, 130  # K, N P Q, C R S on the page
    m, n, k = tall * min(tile_m / M, 1), max(long * tile_n / N, 8), deep * tile_k / K
    left, top = 230, 60
    return "".join(
        [
            rectangle(left, top, long, deep, PALE, "the unrolled input"),
            words(left + long / 2, top - 24, f"the input, unrolled: {K} x {N:,}"),
            rectangle(40, top + deep + 20, deep, tall, PALE, "w"),
            words(40 + deep / 2, top + deep + 98, f"w: {M} x {K}"),
            rectangle(left, top + deep + 20, long, tall, PALE, "y"),
            words(left + long / 2, top + deep + 98, f"y: {M} x {N:,}, a block {tile_m} x {tile_n}"),
            rectangle(left, top, n, deep, HALO),
            rectangle(40, top + deep + 20, deep, m, HALO),
            rectangle(left, top, n, k, TILE),
            rectangle(40, top + deep + 20, k, m, TILE),
            rectangle(left, top + deep + 20, n, m, TILE),
            words(left + n + 6, top + k / 2 + 8, f"{tile_k} steps at a time", "start"),
        ]
    )


def planes(name, layer, plan) -> str:
    """A plane of the input, one of the output: what a block makes, and what it reads for it."""
    cell = 182 / max(layer.H, layer.W)
    P, Q = layer.outputs
    left, right, top = 60, 420, 60
    parts = [
        words(left + layer.W * cell / 2, top - 20, f"a plane of x: {layer.H} x {layer.W}"),
        words(right + Q * cell / 2, top - 20, f"a plane of y: {P} x {Q}"),
    ]
    whole = name != "direct"  # then a block makes all of this plane
    for h in range(layer.H):
        parts += [
            rectangle(left + v * cell, top + h * cell, cell, cell, HALO if whole else PALE) for v in range(layer.W)
        ]
    for p in range(P):
        parts += [
            rectangle(
                right + q * cell, top + p * cell, cell, cell, HALO if whole or p * Q + q < plan["threads"] else PALE
            )
            for q in range(Q)
        ]
    parts += [
        rectangle(left + (4 + s) * cell, top + (3 + r) * cell, cell, cell, TILE)
        for r in range(layer.R)
        for s in range(layer.S)
    ]
    parts += [rectangle(right + 4 * cell, top + 3 * cell, cell, cell, TILE)]
    grid = " x ".join(f"{n:,}" for n in plan["grid"])
    parts.append(
        words(
            360,
            top + layer.H * cell + 36,
            f"one output and its window; pale: what a block of {plan['threads']} threads has to do with. A grid of {grid}",
        )
    )
    return "".join(parts)


FILLERS = {"about": about, "picture": picture, "code": code, "traffic": traffic, "ladder": ladder}
FILLERS |= {"include": include, "bars": bars}
