"""A run as tables for a terminal."""

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .case import OURS
from .targets import figures, row_id

TITLES = {
    "conv": "convolutions (float32, with bias)",
    "pool": "pooling",
    "activation": "activations",
    "step": "training steps",
    "overhead": "a call that has next to nothing to do",
}
NARROWEST, WIDEST = (
    150,
    250,
)  # columns: in a narrower terminal lines wrap, which loses nothing; where there is no terminal, they need not


def console():
    """Tables go to stdout."""
    terminal = Console()
    return Console(width=max(NARROWEST, terminal.width) if terminal.is_terminal else WIDEST)


def progress():
    """On a terminal's stderr; nothing elsewhere."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    terminal = Console(stderr=True)
    return Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal)


def print_run(out, kept, old=None):
    """All there is to say about a run: tables, targets, and what changed since the run `old`."""
    _print_machine(out, kept["machine"], kept["ceilings"], kept["options"])
    _print_rows(out, kept["rows"])
    _print_memory(out, kept["rows"])
    _print_figures(out, kept["rows"])
    if old:
        _print_comparison(out, old, kept)


def _print_machine(out, machine, ceilings, options):
    """What it was measured on."""
    commit = f" ({machine['commit']})" if machine["commit"] else ""
    out.print(
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores, {machine['capability']}; "
        f"torch {machine['torch']}, convlab {machine['convlab']}{commit}",
        highlight=False,
    )
    if ceilings:
        parts = []
        if ceilings["peak_gflops"]:
            parts.append(f"{ceilings['peak_gflops']:.0f} GFLOP/s")
        if ceilings["copy_gbps"]:
            copies = ", ".join(f"{int(size) / 2**20:g}: {rate:.0f}" for size, rate in ceilings["copy_gbps"].items())
            parts.append("copies of so many MiB at so many GB/s: " + copies)
        too_low = " (too low: other programs took the processor)" * ceilings["disturbed"]
        out.print(f"ceilings: {'; '.join(parts)}{too_low}", highlight=False, soft_wrap=True)
    out.print(
        "data: "
        + ("cold, in rotation over twice the last-level cache" if options["cold"] else "warm, the same in every call"),
        highlight=False,
    )


def _print_rows(out, rows):
    """A table for each kind of row. `?` behind a time: other programs disturbed it."""
    for kind, title in TITLES.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        if of_kind:
            out.print(_table(kind, title, of_kind))
    for line in _unmeasured(rows):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    disturbed = [row_id(row) for row in rows if row.get("disturbed")]
    if disturbed:
        out.print(
            f"[yellow]? other programs took the processor during {len(disturbed)} of {len(rows)} rows: measure them again on an idle machine[/]"
        )


def _unmeasured(rows):
    """A line for each contestant without a time, with the reason."""
    for row in rows:
        if "refused" in row:
            yield f"refused: {row_id(row)}: {row['refused']}"
        for name, times in row.get("times", {}).items():
            if "failed" in times:
                yield f"failed: {row_id(row)}: {name}: {times['failed']}"


def _table(kind, title, rows):
    peers = list(dict.fromkeys(name for row in rows for name in row.get("times", {}) if name != OURS))
    has_ceiling = any("share" in row for row in rows)
    rate = "GB/s" if kind in ("pool", "activation") else "GFLOP/s"
    table = Table(title=title, box=box.SIMPLE, title_justify="left", pad_edge=False)
    for heading in ("layer", "pass", "layout"):
        table.add_column(heading, no_wrap=True)
    for heading in (
        "convlab us",
        "+-",
        *(["floor us", rate, "of ceiling"] if has_ceiling else []),
        *(f"{name} us" for name in peers),
    ):
        table.add_column(heading, justify="right")
    table.add_column("torch's best / convlab", justify="right")
    table.add_column("quartiles", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["layer"], row["pass"], row["layout"], *_cells(row, peers, has_ceiling))
    return table


def _cells(row, peers, has_ceiling):
    if "refused" in row:
        return ["[red]refused[/]"]
    ours, ratio = row["times"][OURS], row["ratios"][row["best"]]
    cells = [
        f"{ours['median']:.1f}" + ("?" if row["disturbed"] else ""),
        f"{50 * (ours['q3'] - ours['q1']) / ours['median']:.0f}%",
    ]
    if has_ceiling:
        cells += [f"{row['floor']:.1f}", f"{row['rate'][OURS]:.1f}", f"{100 * row['share'][OURS]:.0f}%"]
    for name in peers:
        times = row["times"].get(name, {"failed": ""})
        cells.append("failed" if "failed" in times else f"{times['median']:.1f}" + ("*" if name == row["best"] else ""))
    colour = "green" if ratio["median"] >= 1 else "red"
    return [*cells, f"[{colour}]{ratio['median']:.2f}x[/]", f"{ratio['q1']:.2f}-{ratio['q3']:.2f}"]


def _print_figures(out, rows):
    """What was wanted, what the measured rows reach, and which of them fall short."""
    found = figures(rows)
    if not found:
        return
    table = Table(title="targets, of the rows that were measured", box=box.SIMPLE, title_justify="left", pad_edge=False)
    for heading, justify in (
        ("figure", "left"),
        ("rows", "right"),
        ("target", "right"),
        ("value", "right"),
        ("reached", "left"),
    ):
        table.add_column(heading, justify=justify)
    for figure in found:
        value = "-" if figure.value is None else f"{figure.value:.2f}" + "?" * bool(figure.disturbed)
        reached = (
            "[green]yes[/]"
            if figure.reached
            else "[red]no[/]" + (f", {len(figure.misses)} short" if figure.misses else "")
        )
        table.add_row(figure.name, str(figure.rows), figure.target, value, reached)
    out.print(table)
    for figure in found:
        if figure.misses:
            out.print(
                f"short of {figure.target} ({figure.name}): {', '.join(figure.misses)}", highlight=False, soft_wrap=True
            )


def _print_memory(out, rows):
    """What a call takes beside the tensors it is given; workspace is what of that is not outputs."""
    rows = [row for row in rows if "memory" in row]
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row["memory"]))
    table = Table(
        title="memory of a call, MiB: at its peak (of that workspace)",
        box=box.SIMPLE,
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("row", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        cells = (
            f"{m['peak'] / 2**20:.1f} ({max(0, m['peak'] - m['outputs']) / 2**20:.1f})" if m else ""
            for m in map(row["memory"].get, names)
        )
        table.add_row(row_id(row), *cells)
    out.print(table)


def _print_comparison(out, old, new):
    """convlab's times and ratios beside those of an older run."""
    before = {row_id(row): row for row in old["rows"] if "times" in row}
    pairs = [(before[row_id(row)], row) for row in new["rows"] if "times" in row and row_id(row) in before]
    table = Table(title=f"compared with the run of {old['when']}", box=box.SIMPLE, title_justify="left", pad_edge=False)
    table.add_column("row", no_wrap=True)
    for heading in ("us before", "us now", "faster by", "torch's best / convlab before", "now"):
        table.add_column(heading, justify="right")
    for then, row in pairs:
        was, now = (r["times"][OURS]["median"] for r in (then, row))
        ratios = (f"{r['ratios'][r['best']]['median']:.2f}" for r in (then, row))
        table.add_row(
            row_id(row), f"{was:.1f}", f"{now:.1f}", f"[{'green' if now <= was else 'red'}]{was / now:.2f}x[/]", *ratios
        )
    out.print(table)
    for key in ("cpu", "threads", "capability", "torch"):
        if old["machine"][key] != new["machine"][key]:
            out.print(f"[yellow]not the same {key}: {old['machine'][key]} then, {new['machine'][key]} now[/]")
