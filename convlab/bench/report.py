"""A run as tables: lists of cells, which rich draws for a terminal, and Markdown has between bars."""

import statistics

from ..layers import AROUND, FUNCTIONS
from .case import OURS, PRECISIONS
from .measure import base_of
from .record import row_id

FAMILIES = {
    "lenet": "LeNet's",
    "fashion": "the Fashion network's",
    "cifar": "the CIFAR network's",
    "resnet": "ResNet's",
}
FAMILIES |= {"leaky_relu": "leaky ReLU", "relu": "ReLU"}
WHOLE = {"step": "training steps", "inference": "inference", "compiled": "compiled inference"}  # of networks
WORDS = WHOLE | {"conv": " convolutions", "pool": " pooling", "activation": ""}  # behind a family
FUNCTION_NAMES = {call.function: "" for call in (*AROUND, *FUNCTIONS)}
WORDS |= FUNCTION_NAMES


def times_of(row, name) -> dict:
    """The times of a way that count: cold where there are such; empty where there are none."""
    way = row.get("ways", {}).get(name, {})
    return way.get("cold") or way.get("warm") or {}


def best_of(row, peers, name=OURS):
    """Of `peers`, the fastest beside convlab's `name`; None where none was timed."""
    ratios = {peer: ratio for peer in peers if base_of(peer) == name and (ratio := times_of(row, peer).get("ratio"))}
    return min(ratios, key=ratios.get, default=None)


def ratio_of(row, peers, name=OURS):
    """How many times as fast as the fastest of `peers` convlab's `name` is, or None."""
    best = best_of(row, peers, name)
    return best and times_of(row, best)["ratio"]


def peers_of(row, precision=""):
    """torch's ways in the row's precision, or in the one called that."""
    names = [name for name in row.get("ways", ()) if not name.startswith(OURS)]
    return [name for name in names if (" tf32" in name) == bool(precision)]


def floor_of(row):
    return row.get("floor", {}).get(row["precision"])


def us(microseconds):
    return f"{microseconds:,.0f}" if microseconds >= 99.95 else f"{microseconds:.3g}"


def time_of(row, name):
    times = times_of(row, name)
    return us(times["median"]) if times else "failed" if "failed" in row.get("ways", {}).get(name, {}) else "-"


def line_of(row) -> str:
    """A row while a run goes on."""
    if "refused" in row:
        return f"{row_id(row)}: refused: {row['refused']}"
    ways = []
    for name in row["ways"]:
        times, ratio = row["ways"][name], times_of(row, name).get("ratio")
        warm = f" ({us(times['warm']['median'])} warm)" if "cold" in times and "warm" in times else ""
        ways.append(f"{name} {time_of(row, name)}{warm}" + (f" [{ratio:.2f}]" if ratio else ""))
    floor = f"floor {us(floor_of(row))} us, " if floor_of(row) else ""
    return f"{row_id(row)}: {floor}{'; '.join(ways)}{'; disturbed' * row['disturbed']}; {row['seconds']:.1f} s"


def pivot(corner, items, line, column, cell):
    """(headings, lines) of a table with a line and a column for each of what these functions make of `items`."""
    cells, columns = {}, {}
    for item in items:
        columns[column(item)] = None
        cells.setdefault(line(item), {}).setdefault(column(item), []).append(cell(item))
    text = {name: {c: " / ".join(f) for c, f in found.items() if set(f) != {"-"}} for name, found in cells.items()}
    return [corner, *columns], [[name, *(found.get(c, "-") for c in columns)] for name, found in text.items()]


def rungs(rows):
    """(headings, lines): microseconds of every rung, of rows of the ladder."""
    return _by_way("rungs, us: forward / dgrad / wgrad", [row for row in rows if row["kind"] == "ladder"])


def tiles(rows):
    """The same of every tile of a rung."""
    return _by_way("tiles, us: forward / dgrad / wgrad", [row for row in rows if row["kind"] == "tiles"])


def _by_way(corner, rows):
    rows = [row for row in rows if "ways" in row]
    names = [name for name in dict.fromkeys(name for row in rows for name in row["ways"]) if name != OURS]
    return pivot(
        corner,
        [(row, name) for name in names for row in rows],
        lambda item: item[0]["layer"] + f", threads: {item[0].get('threads')}" * ("threads" in item[0]),
        lambda item: item[1].removeprefix(f"{OURS} "),
        lambda item: time_of(*item),
    )


def all_rows(rows):
    """(headings, lines): convlab beside torch at its best. `?` behind a time: other programs disturbed it."""
    headings = ["row", "convlab us", "+-", "of floor", "rate", "torch at its best", "us", "times as fast", "quartiles"]
    return [*headings, "page faults a call", "torch's"], [[row_id(row), *_cells(row)] for row in rows]


def _cells(row):
    if "refused" in row:
        return ["refused"]
    ours, best, floor = times_of(row, OURS), best_of(row, peers_of(row)), floor_of(row)
    theirs, work = times_of(row, best), row["flops"] or row["bytes"]
    return [
        us(ours["median"]) + "?" * row["disturbed"],
        f"{50 * (ours['q3'] - ours['q1']) / ours['median']:.0f} %",
        f"{100 * floor / ours['median']:.0f} %" if floor else "-",
        f"{work / ours['median'] / 1e3:.0f} {'GFLOP/s' if row['flops'] else 'GB/s'}" if work else "-",
        best or "-",
        time_of(row, best),
        f"{theirs['ratio']:.2f}" if theirs else "-",
        f"{theirs['ratio_q1']:.2f}-{theirs['ratio_q3']:.2f}" if theirs.get("ratio_q1") else "-",
        *(f"{times['faults']:.3g}" if times.get("faults") is not None else "-" for times in (ours, theirs)),
    ]


def in_all(rows):
    """(headings, lines): geometric means over groups of rows of how many times as fast as torch convlab is."""
    items = [(name, column, r) for name, found in groups(rows).items() for column, r in found.items()]
    corner, text = "times as fast as torch: mean (least to most)", "{:.2f} ({:.2f} to {:.2f})".format
    mean = statistics.geometric_mean
    return pivot(corner, items, lambda i: i[0], lambda i: i[1], lambda i: text(mean(i[2]), min(i[2]), max(i[2])))


def groups(rows) -> dict[str, dict[str, list[float]]]:
    """{what is timed: {beside which torch: ratios}}."""
    found = {}
    kinds = list(WORDS)
    rows = sorted((row for row in rows if row["kind"] in kinds), key=lambda row: kinds.index(row["kind"]))
    several = {
        (kind, key): len({row.get(key) for row in rows if row["kind"] == kind}) > 1
        for kind in kinds
        for key in ("layout", "precision", "threads")
    }
    for row in rows:
        family = row["pass"] if row["layer"].startswith("x") else row["layer"].split("-")[0]  # x8.64.56.56: no name
        if row["kind"] in FUNCTION_NAMES:
            family = row["kind"]
        names = {OURS: FAMILIES.get(family, family) * (row["kind"] not in WHOLE) + WORDS[row["kind"]]}
        if f"{OURS} graph" in row.get("ways", ()):
            names = {f"{OURS} graph": "training steps as CUDA graphs", OURS: "training steps called one by one"}
        for ours, what in names.items():
            for key, word in (("layout", " in {}"), ("precision", ", {}"), ("threads", ", threads: {}")):
                what += word.format(row.get(key)) * several[row["kind"], key]
            peers, layout = [*peers_of(row), *peers_of(row, " tf32")], f"torch {row['layout']}"
            for column, beside in (
                ("torch at its best", peers_of(row)),
                ("torch in the same layout", [layout, f"{layout} graph"]),
                ("torch also in TF32", peers if peers != peers_of(row) else []),
            ):
                if ratio := ratio_of(row, beside, ours):
                    found.setdefault(what, {}).setdefault(column, []).append(ratio)
    return found


def compared(old, new):
    """(headings, lines): each row beside the older record's."""
    before = {row_id(row): row for row in old["rows"] if times_of(row, OURS)}
    lines = []
    for row in new["rows"]:
        then = before.get(row_id(row))
        if then and times_of(row, OURS):
            was, now = (times_of(r, OURS)["median"] for r in (then, row))
            ratios = (ratio_of(r, peers_of(r)) for r in (then, row))
            lines.append(
                [row_id(row), us(was), us(now), f"{was / now:.2f}", *(f"{r:.2f}" if r else "-" for r in ratios)]
            )
    return ["row", "us before", "us now", "times as fast", "torch's best / convlab before", "now"], lines


def print_run(kept, old=None):
    """All there is to say about a run: what it was measured on, tables, and what changed since the run `old`."""
    rows = kept["rows"]
    print("\n".join(facts(kept)))
    tables = {"": all_rows(rows), "rung by rung": rungs(rows), "tile by tile": tiles(rows), "in all": in_all(rows)}
    if old:
        tables[f"compared with the run of {old['when']} on {next(facts(old))}"] = compared(old, kept)
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print("python -m convlab.bench draws its tables with rich, which is not installed: pip install rich")
    else:
        terminal = Console()
        console = Console(width=max(150, terminal.width) if terminal.is_terminal else 250)
        for title, (headings, lines) in tables.items():
            if lines:
                table = Table(title=title, box=box.SIMPLE, title_justify="left", pad_edge=False)
                for place, heading in enumerate(headings):
                    table.add_column(heading, justify="left" if place == 0 else "right")
                for line in lines:
                    table.add_row(*line)
                console.print(table, highlight=False, markup=False)
    print("\n".join(missing(kept)), end="\n" * bool(missing(kept)))


def facts(kept):
    """Lines: the machine, and what it reaches."""
    m = kept["machine"]
    commit = f" ({m['commit']})" if m["commit"] else ""
    state = "".join(f", {key} {value}" for key, value in m.get("state", {}).items())
    yield f"{m.get('gpu') or m['cpu']}, {m['capability']}, torch {m['torch']}, convlab {m['convlab']}{commit}{state}"
    for c in kept["ceilings"]:
        threads = f", threads: {c['threads']}" if "threads" in c else ""
        low = "; too low: other programs took the processor" * c.get("disturbed", False)
        yield f"ceilings{threads}: {', '.join(ceilings_of(c)) or 'none was needed'}{low}"
        yield from (f"no ceiling {name}: {why}" for name, why in c.get("failed", {}).items())


def ceilings_of(c):
    """The words of a device's ceilings."""
    if "threads" in c:
        copies = ", ".join(f"{int(size) / 2**20:g} MiB: {rate / 1e9:,.0f}" for size, rate in c["copy"].items())
        peak = [f"multiply-adds {c['fma'] / 1e9:,.0f} GFLOP/s"] if c["fma"] else []
        return peak + [f"copies, GB/s by size: {copies}"] * bool(copies)
    words = {"ffma": "multiply-adds"} | {f"matmul_{p}": f"cuBLAS {p}" for p in PRECISIONS}
    rates = [f"{word} {c[key] / 1e12:.0f} TFLOP/s" for key, word in words.items() if c.get(key)]
    return ([f"copy {c['copy'] / 1e9:,.0f} GB/s"] if c["copy"] else []) + rates


def missing(kept):
    """Lines: what has no time, or no good one, and why."""
    rows = kept["rows"]
    ways = [(row, name, way) for row in rows for name, way in row.get("ways", {}).items()]
    found = [f"refused: {row_id(row)}: {row['refused']}" for row in rows if "refused" in row]
    found += [f"failed: {row_id(row)}: {name}: {way['failed']}" for row, name, way in ways if "failed" in way]
    if disturbed := sum(row.get("disturbed", False) for row in rows):
        found.append(f"? other programs took the processor during {disturbed} of {len(rows)} rows: measure them again")
    if kept["left_out"]:
        found.append(f"{kept['left_out']} rows were left out: {kept['why_left_out']}")
    return found
