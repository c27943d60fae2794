"""The tables of docs/performance.md and the bars of README.md, from records of what was measured: never typed, and a test
compares them.

    python -m tools.figures                  from the records that the page names
    python -m tools.figures RECORD.json      from that of a run on a CPU or a GPU, or of make gpu-report

A GPU, a CPU and one with AVX-512 have a block of the page each, and whole models, between lines that name the JSON.
"""

import re
import statistics
import sys
from pathlib import Path

from convlab import _files
from convlab.bench import record, report
from convlab.bench.case import OURS, PRECISIONS
from convlab.bench.record import ROOT, BadRecord
from convlab.layers import CONVOLUTIONS
from tools import run
from tools.gpu_report import KINDS

PAGE, README = ROOT / "docs" / "performance.md", ROOT / "README.md"
CPU, AVX512, MODELS, GPU = BLOCKS = "measured", "measured with AVX-512", "measured of whole models", "measured on a GPU"
AROUND = "the functions around these"  # in the README; the page names each
BARS = re.compile(r"(<!-- how fast -->\n).*?(<!-- end of how fast -->)", re.DOTALL)


def main():
    """Writes the page's tables from the JSON that is named, or from those that the page names itself; then the bars."""
    try:
        text = PAGE.read_text()
        for name in sys.argv[1:] or filter(None, (source_of(text, block) for block in BLOCKS)):
            source = Path(name).resolve()
            if not source.is_relative_to(ROOT):
                raise BadRecord(f"{name} lies outside of {ROOT}: {PAGE.name} can only name what is in it")
            text = updated(text, record.read(source), source.relative_to(ROOT).as_posix())
        readme = with_bars(README.read_text(), text)
        _files.write(PAGE, text)
        _files.write(README, readme)
    except (OSError, BadRecord) as error:
        sys.exit(f"python -m tools.figures: {error}")


def of_gpu(read) -> bool:
    return read.get("command") in (record.REPORT, "gpu")


def of_models(read) -> bool:
    return read.get("options", {}).get("of") == "models"


def source_of(text, block=CPU):
    """The JSON that the page's block names, or None while nothing has been measured. Raises BadRecord without a
    block."""
    name = _block(text, block).group(1)
    return None if name == "nothing" else name


def contents_of(text, block=CPU):
    """What stands in the page's block."""
    return _block(text, block).group(2).strip()


def updated(text, read, name):
    """The page with the block written anew that `read`, the JSON which lies in `name`, is for."""
    wide = read.get("machine", {}).get("capability") == "AVX512" and f"<!-- {AVX512}: " in text
    block = GPU if of_gpu(read) else MODELS if of_models(read) else AVX512 if wide else CPU
    match = _block(text, block)
    new = f"<!-- {block}: {name} -->\n{tables(read, name)}\n<!-- end of what was {block} -->"
    return text[: match.start()] + new + text[match.end() :]


def _block(text, block):
    match = re.search(rf"<!-- {block}: ([^\n]*?) -->\n(.*?)<!-- end of what was {block} -->", text, re.DOTALL)
    if match is None:
        raise BadRecord(f"the page has no block between <!-- {block}: ... --> and <!-- end of what was {block} -->")
    return match


def with_bars(readme, page):
    """The README with its bars drawn anew, from the records that the page names."""
    avx512, avx2, gpu = (name and record.read(ROOT / name) for name in (source_of(page, b) for b in (AVX512, CPU, GPU)))
    drawn = [bars(*of) for of in ((avx512 or avx2, avx512 and avx2), (gpu, None)) if of[0]]
    return BARS.sub(lambda match: match[1] + "```text\n" + "\n\n".join(drawn) + "\n```\n" + match[2], readme)


def bars(read, beside=None, one=10) -> str:
    """A line for each kind of what a record has in float32: how many times as fast as torch at its best convlab is, by the
    geometric mean over both layouts; torch is a bar of `one` characters, which a line marks in those that are longer.
    `beside`: another CPU's record, whose number stands behind."""
    kept = record.opened(read, "the file")
    means, others = _means(kept), _means(record.opened(beside, "the file")) if beside else {}
    m, left = kept["machine"], kept["left_out"]
    lines = [
        f"{m['gpu']}, CUDA {m['cuda']}, cuDNN {m['cudnn']}, torch {m['torch']}, float32"
        + f"; {left} rows left out" * bool(left)
        if of_gpu(read)
        else f"{_cpu_of(kept)}, torch {m['torch']}, float32"
        + (f"; behind, with {beside['machine']['capability']}" if beside else "")
    ]
    for name, mean in means.items():
        bar = "█" * round(one * min(mean, 4))
        bar = bar[:one] + "│" + bar[one:] if len(bar) > one else bar.ljust(one) + "│"
        lines.append(f"  {name:36}{bar} {mean:.2f}" + (f", {others[name]:.2f}" if name in others else ""))
    return "\n".join(lines)


def _means(kept):
    """By kind of row, in float32 and with all threads"""
    most = max(row.get("threads", 0) for row in kept["rows"])
    rows = [row for row in kept["rows"] if row["precision"] == "float32" and row.get("threads", 0) == most]
    ratios, kinds = {}, {row["kind"] for row in rows}
    for name, found in report.groups(rows).items():
        name = re.sub(" in (nchw|channels_last)", "", name)
        ratios.setdefault(AROUND if name in kinds else name, []).extend(found["torch at its best"])
    return {name: statistics.geometric_mean(found) for name, found in ratios.items()}


def _cpu_of(kept):
    m = kept["machine"]
    return f"{m['cpu']}, {m['capability']}, {max(row['threads'] for row in kept['rows'])} threads"


def tables(read, name="the file") -> str:
    """A block, from the JSON of a run on a CPU, a GPU or of whole models, or of a GPU's report. Raises BadRecord for a run
    that is dry, or not of what convlab does unasked."""
    gpu, kept = of_gpu(read), record.opened(read, name)
    options = kept["options"]
    words = [word for word in options["words"] or () if not (gpu and set(word.split(",")) <= {*KINDS, "tiles"})]
    partial = (
        kept["command"] != ("gpu" if gpu else "cpu"),
        kept["dry"],
        not (gpu or kept["complete"]),
        words,
        options["shape"],
        options["cold"],
        options["algo"] != "auto",
        options.get("of") == "survey",
    )
    if any(partial):
        raise BadRecord(
            f"the page shows whole runs: {name} has a dry one, a selection of rows, a survey, --cold or --algo"
        )
    parts = _gpu(read, kept) if gpu else _models(kept) if of_models(read) else _cpu(kept)
    written = (part if isinstance(part, str) else _markdown(*part) for part in parts)
    return "\n\n".join(part for part in written if part)


def _markdown(headings, lines):
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *lines)) if lines else ""


# ---- a CPU -----------------------------------------------------------------------------------------------------------


def _cpu(kept):
    c = kept["ceilings"][-1]
    rows = [row for row in kept["rows"] if row["threads"] == c["threads"]]
    layers = {layer.name: _shape(layer) for layer in CONVOLUTIONS}
    convolutions = [row for row in rows if row["kind"] == "conv" and row["layout"] == "nchw" and row["layer"] in layers]
    return [
        f"{_measured(kept)}: a peak of {c['fma'] / 1e9:.0f} GFLOP/s. Rates count the operations of the definition, which "
        "Winograd's algorithm goes below, and so past the peak. Behind each, how many times as fast as the best of torch, "
        "NCHW and channels_last." + _disturbed(rows),
        report.pivot(
            "NCHW convolution, N x C x H x W -> K",
            convolutions,
            lambda row: layers[row["layer"]],
            lambda row: row["pass"],
            _rate,
        ),
        report.in_all(kept["rows"]),
    ]


def _models(kept):
    most = max(row["threads"] for row in kept["rows"])
    rows = [row for row in kept["rows"] if row["threads"] == most]
    return [
        f"{_measured(kept)}: milliseconds, and how many times as fast as the best of torch: NCHW and channels_last and, beside "
        "compiled models, torch.compile's of both." + _disturbed(rows, ", marked with ~"),
        report.pivot(
            "model",
            rows,
            lambda row: row["layer"],
            lambda row: f"{report.WHOLE[row['kind']]} in {row['layout']}",
            lambda row: (
                f"{report.times_of(row, OURS)['median'] / 1e3:.0f} ms, {report.ratio_of(row, report.peers_of(row)):.2f}"
                + " ~" * row.get("disturbed", False)
            ),
        ),
        report.in_all(kept["rows"]),
    ]


def _measured(kept):
    """The machine, the day and the commit"""
    m = kept["machine"]
    by = "".join(f", {name}={value}" for name, value in m["environment"].items())
    return f"{_cpu_of(kept)}{by}, float32, torch {m['torch']}, {kept['when'][:10]} at {m['commit']}"


def _disturbed(rows, marked=""):
    count = sum(row.get("disturbed", False) for row in rows)
    return f" Other programs disturbed {count} of {len(rows)} rows{marked}." * bool(count)


def _shape(layer):
    words = [f"{layer.N} x {layer.C} x {layer.H} x {layer.W} -> {layer.K}, {layer.R} x {layer.S}"]
    words += [f"stride {layer.stride[0]}"] * (layer.stride[0] > 1)
    words += [f"padding {layer.padding[0]}"] * (layer.padding[0] > 0)
    return ", ".join(words + [f"{layer.groups} groups"] * (layer.groups > 1))


def _rate(row):
    if "refused" in row:
        return "refused"
    rate = row["flops"] / report.times_of(row, OURS)["median"] / 1e3
    return f"{rate:.0f} GFLOP/s, {report.ratio_of(row, report.peers_of(row)):.2f}"


# ---- a GPU -----------------------------------------------------------------------------------------------------------


def _gpu(read, kept):
    rows = kept["rows"]
    by = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    both = len({row["layout"] for row in by["conv"]}) > 1
    steps = [(row, name) for row in by["step"] for name in row.get("ways", ())]
    return [
        _sentence(kept),
        report.in_all(rows),
        _conditions(read, kept),
        *(
            report.pivot(
                f"{precision} convolution @ batch",
                [row for row in by["conv"] if row["precision"] == precision],
                lambda row: row["layer"],
                lambda row: row["pass"] + f" {row['layout']}" * both,
                _cell,
            )
            for precision in PRECISIONS
            if any(row["precision"] == precision for row in by["conv"])
        ),
        report.pivot(
            "float32 pooling and leaky ReLU @ batch",
            by["pool"] + by["activation"],
            lambda row: row["layer"],
            lambda row: f"{row['pass']} {row['layout']}",
            _cell,
        ),
        report.rungs(rows),
        _counted(read),
        report.pivot(
            "training step, us: eager / CUDA graph",
            steps,
            lambda item: f"{item[0]['layer']}, {item[0]['precision']}",
            lambda item: item[1].removesuffix(" graph"),
            lambda item: report.time_of(*item),
        ),
    ]


def _sentence(kept):
    found = report.groups([row for row in kept["rows"] if row["precision"] == "float32"])
    means = {name: statistics.geometric_mean(ratios["torch at its best"]) for name, ratios in found.items()}
    said = [
        f"{word}: {', '.join(found)}"
        for word, faster in (("faster than torch at its best", True), ("slower", False))
        if (found := [f"{name} ({mean:.2f} times)" for name, mean in means.items() if (mean >= 1) == faster])
    ]
    return f"On an {kept['machine']['gpu']}, in float32 and by geometric means, {'; '.join(said)}." if said else ""


def _conditions(read, kept):
    m, left = kept["machine"], kept["left_out"]
    driver = f", driver {m['state']['driver_version']}" if m.get("state") else ""
    refused = sum("refused" in row for row in kept["rows"])
    failed = [f"{name} ({done['why']})" for name, done in read.get("steps", {}).items() if not done["ok"]]
    return (
        f"{m['gpu']}{driver}, torch {m['torch']}, CUDA {m['cuda']}, cuDNN {m['cudnn']}, {kept['when'][:10]}. Ceilings, "
        f"measured: {', '.join(report.ceilings_of(kept['ceilings'][0]))}. Single calls are timed in CUDA graphs, on more "
        "data than the L2 cache holds, torch's with `cudnn.benchmark`. Each cell below shows the time in microseconds, "
        "how much of it the roofline takes, which is operations and bytes at the ceilings, and how many times as fast as "
        "torch at its best that is, in either layout."
        + f" {refused} rows were refused for wrong outputs or errors." * bool(refused)
        + f" {left} rows were left out: {kept['why_left_out']}." * bool(left)
        + f" Steps of the report that failed: {', '.join(failed)}." * bool(failed)
    )


def _cell(row):
    """Microseconds, the floor's share of them, and how many times as fast as torch at its best."""
    ours = report.times_of(row, OURS).get("median")
    if ours is None:
        return "refused"
    floor, ratio = report.floor_of(row), report.ratio_of(row, report.peers_of(row))
    share = [f"{100 * floor / ours:.0f} %"] if floor else []
    return ", ".join([report.us(ours), *share, *([f"{ratio:.2f}"] if ratio else [])])


def _counted(read):
    """A sentence: the simulator's counts of the rungs' kernels beside the hardware's."""
    counters = read.get("steps", {}).get("counters", {}).get("data") or {}
    rows = [row for row in counters.get("rows", ()) if row["measured"]]
    pairs = [
        (key, row["simulated"][key], row["measured"][key])
        for row in rows
        for key in row["simulated"]
        if key in row["measured"]
    ]
    same = [a == b for key, a, b in pairs if key != "shared_wavefronts"]
    close = [0.9 <= b / a <= 1.1 for key, a, b in pairs if key == "shared_wavefronts" and a]
    if not same or not close:
        return ""
    return (
        f"Counted by the hardware (`ncu`) in the {len(rows)} kernels of the rungs on "
        f"{' and '.join(dict.fromkeys(row['layer'] for row in rows))}: requests and sectors of device memory are what "
        f"the simulator counts, to the last one, in {sum(same)} of {len(same)} counts; wavefronts of shared memory are "
        f"within 10 % in {sum(close)} of {len(close)}."
    )


if __name__ == "__main__":
    run(main)
