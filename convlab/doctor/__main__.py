"""Examines this installation: one line for each thing that matters, with its verdict, and the command that fixes it.

    python -m convlab.doctor            ends with status 1 if something is at fault
    python -m convlab.doctor --json     the same for programs: {"ok": ..., "findings": [{"name", "verdict", "found",
    "fix"}]}

A note is something that not everybody needs, such as nvcc where convlab is built already.
"""

import json

from .._command_line import Parser
from .._pipe import run
from . import building, child, gpu, packages
from .finding import Finding, fault, ok

TOLERATED = 1e-4  # of the self-test's relative differences: float32, sums of tens of products


def examine():
    """Yields a Finding for each check; later ones use what earlier ones found."""
    yield packages.python()
    finding, torch = packages.torch()
    yield finding
    yield packages.threads()
    whole = packages.own_libraries()
    yield whole
    yield from packages.elsewhere()
    build, tests = None, []
    if torch and whole.verdict != "fault":
        outcome = child.run("-m", "convlab.doctor.selftest")
        said = [json.loads(line) for line in outcome.lines if line.startswith("{")]
        build = next((line["build"] for line in said if "build" in line), None)
        tests = list(_tests(said, outcome.failure)) if build else []
        yield packages.imported(outcome, build)
        if build:
            yield packages.instruction_set(build)
    finding, gpus = gpu.driver()
    yield finding
    yield gpu.architectures(gpus, torch, build)
    finding, cxx = building.host_compiler()
    yield finding
    yield building.nvcc(cxx, torch and torch.cuda)
    yield building.ninja()
    yield building.memory()
    yield packages.torchvision(torch)
    yield from tests


def _tests(said, failure):
    """The self-test's lines as findings; `failure`: how its process ended, if not well."""
    fix = "send this to convlab's maintainers"
    running = None
    for line in said:
        running = line.get("starts")
        if "failure" in line:
            yield fault(line["name"], line["failure"], fix)
        elif "error" in line and line["error"] <= TOLERATED:
            yield ok(line["name"], f"agrees with torch to {line['error']:.1e}")
        elif "error" in line:
            yield fault(line["name"], f"differs from torch by {line['error']:.1e}", fix)
    if failure:
        yield fault(running or "self-test", failure, fix)


def main(argv=None) -> int:
    parser = Parser("python -m convlab.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    args = parser.parse_args(argv)
    findings: list[Finding] = []
    for finding in examine():
        findings.append(finding)
        if not args.json:
            print(finding, flush=True)
    faults = [finding for finding in findings if finding.verdict == "fault"]
    if args.json:
        print(json.dumps({"ok": not faults, "findings": [finding._asdict() for finding in findings]}, indent=1))
    else:
        print(
            f"\n{len(faults)} at fault: {', '.join(finding.name for finding in faults)}"
            if faults
            else "\nnothing at fault"
        )
    return 1 if faults else 0


if __name__ == "__main__":
    run(main)
