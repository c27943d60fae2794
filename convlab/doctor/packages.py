"""Python, torch and its threads, torchvision, and convlab's own libraries."""

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

from .. import libraries, toolchain
from . import child
from .finding import Finding, fault, note, ok

# Prints {version, cuda, gpu, torchvision}, what cannot be had as ["error", text].
_ASK_TORCH = """
import json, warnings
import torch
facts = {"version": torch.__version__, "cuda": torch.version.cuda}
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    facts["gpu"] = torch.cuda.is_available()
facts["complaint"] = str(said[0].message).split("(Triggered")[0].strip() if said else ""
try:
    import torchvision
    facts["torchvision"] = torchvision.__version__
except ModuleNotFoundError as error:
    facts["torchvision"] = None if error.name == "torchvision" else ["error", str(error)]
except Exception as error:
    facts["torchvision"] = ["error", str(error)]
print(json.dumps(facts))
"""


class Torch(NamedTuple):
    """What torch says of itself. gpu: whether it sees one; complaint: what it warns of while it looks."""

    version: str
    cuda: str | None
    gpu: bool
    complaint: str
    torchvision: str | list[str] | None


def python() -> Finding:
    oldest = "{}.{}".format(*toolchain.OLDEST_PYTHON)
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < toolchain.OLDEST_PYTHON:
        return fault(
            "Python",
            f"{found}: convlab needs {oldest} or newer",
            f"install Python {oldest} or newer, and make an environment with it",
        )
    return ok("Python", found)


def torch() -> tuple[Finding, Torch | None]:
    """None where torch is missing, too old, or cannot be imported."""
    oldest = toolchain.OLDEST_TORCH
    installed = toolchain.torch_facts()
    if installed is None:
        return fault("torch", "not installed", f"pip install 'torch>={oldest}'"), None
    version = str(installed["__version__"])
    if toolchain.numbers(version) < toolchain.numbers(oldest):
        return fault("torch", f"{version}: convlab needs {oldest} or newer", "pip install --upgrade torch"), None
    outcome = child.run("-c", _ASK_TORCH)
    if outcome.failure:
        return fault(
            "torch", f"{version} cannot be imported: {outcome.failure}", "pip install --force-reinstall torch"
        ), None
    facts = Torch(**json.loads(outcome.lines[-1]))
    return ok("torch", f"{facts.version}, " + (f"CUDA {facts.cuda}" if facts.cuda else "for the CPU alone")), facts


def torchvision(torch: Torch | None) -> Finding:
    if torch is None:
        return note("torchvision", "not tried without torch")
    if torch.torchvision is None:
        return note(
            "torchvision",
            "not installed; training from data sets and the tests' models need it",
            "pip install torchvision",
        )
    if isinstance(torch.torchvision, list):
        found = f"cannot be imported beside torch {torch.version}: {torch.torchvision[1]}"
        return fault("torchvision", found, "pip install --upgrade --force-reinstall torchvision")
    return ok("torchvision", torch.torchvision)


def own_libraries() -> Finding:
    """Whether all of convlab's libraries are there and whole."""
    for name in libraries.FILES:
        if reason := libraries.fault(name):
            said, _, fix = reason.removeprefix("convlab: ").rpartition(": ")
            return fault("libraries", said, fix)
    if reason := libraries.newer_sources():
        said, _, fix = reason.removeprefix("convlab: ").rpartition(": ")
        return note("libraries", said, fix)
    return ok("libraries", f"{', '.join(libraries.FILES)} in {libraries.FOLDER}")


def elsewhere() -> list[Finding]:
    """A note where pip has installed another convlab than the one that runs."""
    if not (other := _installed()) or other.resolve() == libraries.FOLDER.resolve():
        return []
    here = f"pip install --no-build-isolation --config-settings editable_mode=compat -e {libraries.FOLDER.parent}"
    return [note("installed", f"another convlab, {other}, which Python finds outside of this folder", here)]


def _installed() -> Path | None:
    """The folder of the convlab that pip installed, if it did: of the checkout, where that is editable."""
    try:
        installed = metadata.distribution("convlab")
    except metadata.PackageNotFoundError:
        return None
    source = json.loads(installed.read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        return Path(url2pathname(urlparse(source["url"]).path)) / "convlab"
    return Path(str(installed.locate_file("convlab")))


def imported(outcome: child.Outcome, build: dict | None) -> Finding:
    """Whether `import convlab` works, and what its libraries were built with. build: convlab.build_info(), None if it
    does not."""
    if build is None:
        said, colon, fix = outcome.failure.removeprefix("convlab: ").rpartition(": ")
        return fault("import convlab", said if colon else outcome.failure, fix if colon else libraries.rebuild())
    cuda = (
        f"nvcc {build['nvcc']} for {' '.join(build['cuda_archs'])}" if build["cuda"] else "no nvcc: CPU and simulator"
    )
    return ok("built with", f"torch {build['torch_built']}, {build['cxx']}, {cuda}")


def threads() -> Finding:
    """How torch's threads wait for one another, which GNU's OpenMP reads when torch is imported."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):  # the first counts where both are set
        if name in os.environ:
            return ok("threads", f"wait as {name}={os.environ[name]} says")
    found = "wait busily for one another: beside another busy program small networks train several times slower"
    return note("threads", found, "export OMP_WAIT_POLICY=PASSIVE")


def instruction_set(build: dict) -> Finding:
    """Which CPU kernels run."""
    forced = os.environ.get("CONVLAB_CPU")
    if forced:
        return note("instruction set", f"{build['cpu_kernels']}, because CONVLAB_CPU={forced}", "unset CONVLAB_CPU")
    kernels = build["cpu_kernels"] + " and, for bfloat16, AMX" * build["amx"]
    return ok("instruction set", f"{kernels}, the best that this machine runs and convlab has")
