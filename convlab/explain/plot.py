"""The roofline with the rungs on it: memory's roof and the caches', the layer's own limit, and where each rung's
traffic puts it."""

import math
import textwrap
from pathlib import Path
from typing import NamedTuple

from ..gpus import Gpu
from .explanation import Bound, Explanation
from .work import Work

COLOURS = (
    "#4477aa",
    "#66ccee",
    "#228833",
    "#ccbb44",
    "#ee6677",
    "#aa3377",
    "#bbbbbb",
    "#000000",
)  # Tol's, told apart by all eyes


INCHES, LETTERS = 5.6, 84  # of a panel: its width, and how many letters of the title fit above it


class Point(NamedTuple):
    """A kernel that was counted: x operations a byte through the L1 caches, y GFLOP/s at best."""

    name: str
    x: float
    y: float
    bound: Bound


class Panel(NamedTuple):
    """A roofline: what the work takes at least, and the kernels that do it."""

    title: str
    work: Work
    bound: Bound
    points: list[Point]


def draw(e: Explanation, path) -> None:
    """Writes a picture of counted rungs; the file's name says which kind. Raises RuntimeError without matplotlib,
    ValueError without counts."""
    figure_of(e).savefig(Path(path), dpi=150)


def figure_of(e: Explanation):
    """A panel a pass, with the rungs that were counted. Raises as `draw` does."""
    if not any(rung.counted for p in e.passes for rung in p.rungs):
        raise ValueError(
            "explain: nothing was counted that could be drawn: no rung can do this problem, or count=True is missing"
        )
    panels = [
        Panel(
            p.name,
            p.work,
            p.bound,
            [point(r.algorithm, p.work, r.through_caches, r.bound) for r in p.rungs if r.counted],
        )
        for p in e.passes
    ]
    names = [rung.algorithm for rung in e.passes[0].rungs]
    dtype = str(e.problem.dtype).removeprefix("torch.")
    title = f"{e.layer or 'convolution'} on {e.gpu.name}: batch {e.problem.x[0]}, {dtype}"
    return figure(title, e.gpu, panels, names)


def point(name: str, work: Work, through_caches: float, bound: Bound) -> Point:
    return Point(name, work.flops / through_caches, 1e-3 * work.flops / bound.microseconds, bound)


def figure(title: str, gpu: Gpu, panels: list[Panel], names: list[str]):
    """A matplotlib figure. names: of all kernels, in the order of their colours. Raises RuntimeError without
    matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise RuntimeError("explain: a plot needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(INCHES * len(panels), 5.4), layout="constrained")
    all_axes = drawn.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    limits = _limits(gpu, panels)
    for axes, panel in zip(all_axes, panels):
        _draw_panel(axes, gpu, panel, colours, *limits)
    all_axes[0].set_ylabel("GFLOP/s")
    where_from = "Roofs published, operations a byte counted by the simulator, speeds modelled from both: nothing here was measured"
    drawn.suptitle(textwrap.fill(f"{title}. {where_from}", LETTERS * len(panels)), fontsize=9)
    return drawn


def _slopes(gpu):
    """GB/s of memory and of the L1 caches."""
    return gpu.bandwidth, gpu.l1 * gpu.cycles / 1e9


def _peaks(gpu, panel):
    """GFLOP/s by what multiplies: float32's lanes, and tensor cores in the precision of a rung."""
    precisions = {bound.precision for bound in (panel.bound, *(point.bound for point in panel.points))}
    names = {None: "float32 multiply-adds"} | {p: f"products in {p}" for p in precisions if p}
    return {name: gpu.rate(precision) / 1e9 for precision, name in names.items()}


def _limits(gpu, panels):
    """Left, right, low and high ends of what all panels show."""
    points = [point for panel in panels for point in panel.points]
    top = max(peak for panel in panels for peak in _peaks(gpu, panel).values())
    ridges = [top / slope for slope in _slopes(gpu)]
    xs = [*ridges, *(panel.work.intensity for panel in panels), *(point.x for point in points)]
    return min(xs) / 3, max(xs) * 4, min(point.y for point in points) / 6, top * 3


def _draw_panel(axes, gpu, panel, colours, left, right, low, high):
    memory, caches = _slopes(gpu)
    peaks = _peaks(gpu, panel)
    peak, work = max(peaks.values()), panel.work
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high), title=panel.title)
    for name, bandwidth, style in (("memory", memory, "-"), ("L1 caches", caches, "--")):
        ridge = peak / bandwidth
        axes.plot([left, ridge], [left * bandwidth, peak], style, color="#444444", lw=1.4)
        x, above = max(left, low / bandwidth) * 1.2, 1.3
        axes.text(
            x,
            x * bandwidth * above,
            f"{name}, {bandwidth / 1e3:.1f} TB/s",
            rotation=math.degrees(math.atan(bandwidth * above)),
            transform_rotates_text=True,
            rotation_mode="anchor",
            fontsize=8,
            color="#444444",
        )
    for name, height in peaks.items():
        axes.plot([height / caches, right], [height, height], color="#444444", lw=1.4)
        words, color = f"{name}, {height / 1e3:.1f} TFLOP/s", "#444444"
        axes.annotate(words, (right, height * 1.15), ha="right", fontsize=8, color=color)

    limit = 1e-3 * work.flops / panel.bound.microseconds
    axes.plot([work.intensity] * 2, [low, limit], ":", color="#888888", lw=1)
    axes.plot(
        [work.intensity],
        [limit],
        marker="*",
        ms=15,
        color="#ee7733",
        zorder=4,
        ls="none",
        label=f"tap by tap: {panel.bound.microseconds:.3g} us by {panel.bound.roof}",
    )
    for point in panel.points:
        axes.plot(
            [point.x],
            [point.y],
            marker="o",
            ms=9,
            color=colours[point.name],
            markeredgecolor="white",
            zorder=5,
            ls="none",
            label=f"{point.name}: {point.bound.microseconds:.3g} us by {point.bound.roof}",
        )
    axes.set_xlabel("operations a byte: rungs through the L1 caches, the star from memory", fontsize=8)
    axes.grid(which="major", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(
        fontsize=7.5, loc="lower right", framealpha=0.95, title="no faster than  [modelled]", title_fontsize=7.5
    )
