"""The roofline with the rungs on it: memory's roof and the caches', the layer's own limit, and where each rung's
traffic puts it."""

import math
from pathlib import Path

from .explanation import Explanation

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


def draw(e: Explanation, path) -> None:
    """Writes a picture of counted rungs; the file's name says which kind. Raises RuntimeError without matplotlib,
    ValueError without counts."""
    try:
        import matplotlib
    except ImportError:
        raise RuntimeError("explain: a plot needs matplotlib: pip install matplotlib") from None
    if not any(rung.counted for p in e.passes for rung in p.rungs):
        raise ValueError(
            "explain: nothing was counted that could be drawn: no rung can do this problem, or count=True is missing"
        )
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(e.passes), 5.4), layout="constrained")
    panels = figure.subplots(1, len(e.passes), squeeze=False, sharex=True, sharey=True)[0]
    colours = {rung.algorithm: COLOURS[i % len(COLOURS)] for i, rung in enumerate(e.passes[0].rungs)}
    limits = _limits(e)
    for axes, p in zip(panels, e.passes):
        _panel(axes, e, p, colours, *limits)
    panels[0].set_ylabel("GFLOP/s")
    figure.suptitle(
        f"{e.layer or 'convolution'} on {e.gpu.name}: batch {e.problem.x[0]}, {str(e.problem.dtype).removeprefix('torch.')}. Roofs published, "
        "operations a byte counted by the simulator, speeds modelled from both: nothing here was measured",
        fontsize=9,
    )
    figure.savefig(Path(path), dpi=150)


def _roofs(gpu):
    """GFLOP/s of multiply-adds, GB/s of memory and of the L1 caches."""
    return gpu.peak / 1e9, gpu.bandwidth, gpu.l1 * gpu.cycles / 1e9


def _points(p):
    """(rung, operations a byte through the L1 caches, GFLOP/s at best) of the counted rungs."""
    counted = [rung for rung in p.rungs if rung.counted]
    return [
        (rung, p.work.flops / rung.through_caches, 1e-3 * p.work.flops / rung.bound.microseconds) for rung in counted
    ]


def _limits(e):
    """Left, right and low ends of what all panels show."""
    points = [point for p in e.passes for point in _points(p)]
    peak, memory, caches = _roofs(e.gpu)
    xs = [peak / memory, peak / caches, *(p.work.intensity for p in e.passes), *(x for _, x, _ in points)]
    return min(xs) / 3, max(xs) * 4, min(y for _, _, y in points) / 6


def _panel(axes, e, p, colours, left, right, low):
    peak, memory, caches = _roofs(e.gpu)
    work = p.work
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, peak * 3), title=p.name)
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
    axes.plot([peak / caches, right], [peak, peak], color="#444444", lw=1.4)
    axes.annotate(
        f"float32 multiply-adds, {peak / 1e3:.1f} TFLOP/s",
        (right, peak * 1.45),
        ha="right",
        fontsize=8,
        color="#444444",
    )

    limit = 1e-3 * work.flops / p.bound.microseconds
    axes.plot([work.intensity] * 2, [low, limit], ":", color="#888888", lw=1)
    axes.plot(
        [work.intensity],
        [limit],
        marker="*",
        ms=15,
        color="#ee7733",
        zorder=4,
        ls="none",
        label=f"tap by tap in float32: {p.bound.microseconds:.3g} us by {p.bound.roof}",
    )
    for rung, x, y in _points(p):
        axes.plot(
            [x],
            [y],
            marker="o",
            ms=9,
            color=colours[rung.algorithm],
            markeredgecolor="white",
            zorder=5,
            ls="none",
            label=f"{rung.algorithm}: {rung.bound.microseconds:.3g} us by {rung.bound.roof}",
        )
    axes.set_xlabel("operations a byte: rungs through the L1 caches, the star from memory", fontsize=8)
    axes.grid(which="major", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(
        fontsize=7.5, loc="lower right", framealpha=0.95, title="no faster than  [modelled]", title_fontsize=7.5
    )
