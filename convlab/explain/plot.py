"""The roofline with the rungs on it: memory's roof and the caches', the layer's own limit, and where each rung's traffic puts it."""

from pathlib import Path

from .explanation import Explanation

COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb", "#000000")  # Tol's, told apart by all eyes


def draw(e: Explanation, path) -> None:
    """Writes a picture of counted rungs; the file's name says which kind. Raises RuntimeError without matplotlib, ValueError without counts."""
    try:
        import matplotlib
    except ImportError:
        raise RuntimeError("explain: a plot needs matplotlib: pip install matplotlib") from None
    if not any(rung.counted for p in e.passes for rung in p.rungs):
        raise ValueError("explain: nothing was counted that could be drawn: no rung can do this problem, or count=True is missing")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(e.passes), 5.4), layout="constrained")
    panels = figure.subplots(1, len(e.passes), squeeze=False, sharex=True, sharey=True)[0]
    for axes, p in zip(panels, e.passes):
        _panel(axes, e, p)
    panels[0].set_ylabel("GFLOP/s")
    figure.suptitle(f"{e.layer or 'convolution'} on {e.gpu.name}: batch {e.problem.x[0]}, {str(e.problem.dtype).removeprefix('torch.')}. Roofs published, "
                    "operations a byte counted by the simulator, speeds modelled from both: nothing here was measured", fontsize=9)  # fmt: skip
    figure.savefig(Path(path), dpi=150)


def _panel(axes, e, p):
    gpu, work = e.gpu, p.work
    peak, memory, caches = gpu.peak / 1e9, gpu.bandwidth, gpu.l1 * gpu.cycles / 1e9  # GFLOP/s, GB/s, GB/s
    counted = [rung for rung in p.rungs if rung.counted]
    points = [(_intensity(e, work, rung), 1e-3 * work.flops / rung.bound.microseconds) for rung in counted]
    left = min([work.intensity, peak / caches, *(x for x, _ in points)]) / 3
    right = max([work.intensity, peak / memory, *(x for x, _ in points)]) * 4
    low = min([y for _, y in points]) / 3

    for name, bandwidth, style in (("memory", memory, "-"), ("first caches", caches, "--")):
        ridge = peak / bandwidth
        axes.plot([left, ridge], [left * bandwidth, peak], style, color="#444444", lw=1.4)
        x = max(left, low / bandwidth) * 1.15
        axes.annotate(f"{name}, {bandwidth / 1e3:.1f} TB/s", (x, x * bandwidth * 1.15), rotation=_slope(axes), rotation_mode="anchor", fontsize=8, color="#444444")
    axes.plot([peak / caches, right], [peak, peak], color="#444444", lw=1.4)
    axes.annotate(f"float32 multiply-adds, {peak / 1e3:.1f} TFLOP/s", (right, peak * 1.12), ha="right", fontsize=8, color="#444444")

    limit = 1e-3 * work.flops / p.bound.microseconds
    axes.plot([work.intensity] * 2, [low, limit], ":", color="#888888", lw=1)
    axes.plot([work.intensity], [limit], marker="*", ms=15, color="#ee7733", zorder=4, ls="none",
              label=f"nobody is faster: {p.bound.microseconds:.3g} us by {p.bound.roof}")  # fmt: skip
    for i, (rung, (x, y)) in enumerate(zip(counted, points)):
        axes.plot([x], [y], marker="o", ms=9, color=COLOURS[i % len(COLOURS)], markeredgecolor="white", zorder=5, ls="none",
                  label=f"{rung.algorithm}: {rung.bound.microseconds:.3g} us by {rung.bound.roof}")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, peak * 3), title=p.name)
    axes.set_xlabel("operations a byte: rungs through the first caches, the star from memory", fontsize=8)
    axes.grid(which="major", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=7.5, loc="lower right", framealpha=0.95, title="no faster than  [modelled]", title_fontsize=7.5)


def _intensity(e, work, rung):
    """Operations for each byte that goes through the multiprocessors' first caches, or shared memory."""
    us = rung.bound.by_resource["caches"]
    return work.flops / (us * 1e-6 * e.gpu.l1 * e.gpu.cycles)


def _slope(axes):
    """Degrees of a roof: log-log lines of slope one, in a panel a little higher than wide."""
    return 0
