"""What check_kernel found, as one page of HTML that needs no network: the source with what its lines ask of memory
beside them, each finding at its line, and pictures of the launches and of the roofline."""

from pathlib import Path

from ..explain import GPUS, Bound, svg
from ..explain.explanation import bound_of
from ..explain.page import listings, moved, rendered
from ..explain.plot import Panel, figure, point
from . import traffic
from .kernel import SUBJECTS, KernelReport


def page_of(report: KernelReport, source, gpu: str = "H200") -> str:
    """source: the file that was checked; gpu: whose roofline is drawn. It takes the packages of convlab[html]."""
    source = Path(source)
    found = [(file, int(line), f) for f in report.findings if f.where for file, _, line in [f.where.rpartition(":")]]
    return rendered(
        "check.html",
        title=f"{report.source} as {report.what.partition(',')[0]}",
        report=report,
        verdicts=[(subject, report.verdict(subject), _kind(report, subject)) for subject in SUBJECTS],
        sources=listings(list(report.traffic.values()), Path(), found, source),
        columns=list(report.traffic),
        advice={layer: words for layer, rows in report.traffic.items() if (words := traffic.advice(rows))},
        tables={layer: "\n".join(report.beside_others(layer)) for layer in report.numbers},
        legend=traffic.__doc__.split("\n\n")[1].strip(),
        roofline=_roofline(report, gpu),
        launches=[(one, svg.launch(one.grid, one.block)) for one in dict.fromkeys(report.launches)],
    )


def _kind(report: KernelReport, subject: str) -> str:
    """A class of CSS."""
    wrong = any(finding.subject == subject for finding in report.findings)
    if wrong:
        return "wrong"
    return "fine" if report.compared >= (report.problems if subject == "results" else 1) else ""


def _roofline(report: KernelReport, name: str) -> str:
    """Of the layers that were counted; a kernel that multiplies nothing has none."""
    gpu, panels = GPUS[name], []
    for layer, work in report.work.items():
        if work.flops:
            through_caches, bound = sum(map(moved, report.traffic[layer])), bound_of(work, gpu)
            own = Bound(bound.by_resource | {"caches": 1e6 * through_caches / gpu.l1 / gpu.cycles})
            panels.append(Panel(layer, work, bound, [point(report.source, work, through_caches, own)]))
    return svg.figure(figure(f"{report.source} on {name}", gpu, panels, [report.source])) if panels else ""
