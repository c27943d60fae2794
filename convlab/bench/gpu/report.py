"""A run as lines of text, while it goes on: a GPU machine need not have more than torch."""

from ..case import OURS


def print_head(kept):
    """What it is measured on, and the ceilings."""
    m, c = kept["machine"], kept["ceilings"]
    state = "; " * bool(m.get("state")) + ", ".join(f"{key} {value}" for key, value in m.get("state", {}).items())
    commit = f" ({m['commit']})" * bool(m["commit"])
    print(
        f"{m['gpu']}, torch {m['torch']}, CUDA {m['cuda']}, cuDNN {m['cudnn']}, convlab {m['convlab']}{commit}{state}"
    )
    rates = {
        "copy": (c["copy"], 1e9, "GB/s"),
        "multiply-adds": (c["ffma"], 1e12, "TFLOP/s"),
        **{f"cuBLAS {p}": (c[f"matmul_{p}"], 1e12, "TFLOP/s") for p in ("float32", "tf32", "bfloat16")},
    }
    print(
        "ceilings: "
        + ", ".join(
            f"{name} {rate / unit:.3g} {per}" if rate else f"{name} -" for name, (rate, unit, per) in rates.items()
        )
    )
    for name, why in c["failed"].items():
        print(f"no ceiling {name}: {why}")
    if kept["dry"]:
        print("dry run: on the host and in the simulator; the times mean nothing")
    print("microseconds, cold (warm); in a row the floor first; [x] is how many times convlab's time", flush=True)


def print_row(row):
    """A row in a line."""
    print(line_of(row), flush=True)


def line_of(row) -> str:
    name = f"{row['kind']} {row['layer']} {row['pass']} {row['precision']}"
    if "refused" in row:
        return f"{name}: refused: {row['refused']}"
    floors = ", ".join(f"{p} {us:.3g}" for p, us in row["floor"].items() if us is not None)
    cells = [f"{way_name} {_times(way)}{_ratio(row, way_name)}" for way_name, way in row["ways"].items()]
    return f"{name}: floor {floors or '-'}; " + "; ".join(cells) + f"; {sum(row['seconds'].values()):.1f} s"


def heat_of(way) -> str:
    """The one that counts: cold where there is one."""
    return "cold" if "cold" in way else "warm"


def _times(way):
    if "failed" in way:
        return "failed"
    if "cold" not in way:
        return f"{way['warm']['median']:.4g}"
    return f"{way['cold']['median']:.4g} ({way['warm']['median']:.4g})" + "*" * (not way["cold"]["captured"])


def _ratio(row, name):
    ratio = row["ratios"].get(name)
    return f" [{ratio[heat_of(row['ways'][name])]['median']:.2f}]" if ratio and name != OURS else ""
