"""`import convlab` and `python -m convlab.doctor` on installations that are right and that are not: what is wrong, and
what fixes it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import convlab
from convlab import libraries, ops, simulator, toolchain
from convlab.doctor import building, child, gpu, packages
from convlab.doctor.__main__ import _tests

PACKAGE = Path(convlab.__file__).parent
works_with = pytest.mark.works_with
REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps ."
TORCH = packages.Torch("2.15.0+cu132", "13.2", True, "", "0.29")
BUILD = {
    "cuda": True,
    "cuda_archs": ["7.5", "8.0", "9.0+PTX"],
    "nvcc": "13.0.88",
    "cxx": "g++ 12",
    "torch_built": "2.15.0",
    "cpu_kernels": "avx2",
    "amx": False,
}


@pytest.fixture
def broken(tmp_path):
    """A convlab of links to this one, in tmp_path, whose library `name` is `contents`; None leaves it out."""

    def make(name=None, contents=None):
        (tmp_path / "convlab").mkdir()
        for entry in PACKAGE.iterdir():
            if not (name and entry.name == libraries.FILES[name]):
                (tmp_path / "convlab" / entry.name).symlink_to(entry)
        if contents is not None:
            (tmp_path / "convlab" / libraries.FILES[name]).write_bytes(contents)
        return tmp_path

    return make


def python(folder, *arguments, **environ):
    """Runs Python with `folder` before everything else."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environ},
    )


def import_error(folder, *options):
    """The last line of what `import convlab` raises, which must be an ImportError of one line."""
    done = python(folder, *options, "-c", "import convlab")
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: convlab"), done.stderr
    return last


def doctor(folder):
    """Its findings by name. The exit status must be that of the verdicts."""
    done = python(folder, "-m", "convlab.doctor", "--json")
    report = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in report["findings"]}
    at_fault = [name for name, finding in findings.items() if finding["verdict"] == "fault"]
    assert done.returncode == (1 if at_fault else 0) and report["ok"] == (not at_fault), done.stderr
    assert all(finding["fix"] for finding in findings.values() if finding["verdict"] == "fault")
    return findings, at_fault


def old_torch(folder, version="2.10.1+cu128"):
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (folder / "torch" / "version.py").write_text(f"__version__ = {version!r}\ncuda = None\n")
    return folder


# ---- whole installations
# ----------------------------------------------------------------------------------------------


@works_with(
    "any machine: `python -m convlab.doctor` finds what is wrong with an installation, and the command that fixes it"
)
def test_a_good_installation():
    done = subprocess.run([sys.executable, "-m", "convlab.doctor"], capture_output=True, text=True, cwd=PACKAGE.parent)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "nothing at fault", done.stdout + done.stderr
    verdicts = {line[6:30].strip(): line[:6].strip() for line in lines[:-2]}
    for name in ("Python", "torch", "libraries", "built with", "instruction set", "memory", "threads"):
        assert verdicts.pop(name) in ("ok", "note")
    for name in ("driver", "GPU architecture", "host compiler", "nvcc", "ninja", "torchvision"):
        assert verdicts.pop(name)
    backends = ["CPU", "simulator"] + ["CUDA"] * (torch.cuda.is_available() and convlab.build_info()["cuda"])
    assert verdicts == {
        f"{op}, {backend}": "ok"
        for backend in backends
        for op in ("conv2d", "max_pool2d", "avg_pool2d", "leaky_relu", "relu")
    }


@works_with("an extension that was not built, or not whole: `import convlab` says so, and how to build it")
def test_a_missing_library(broken):
    folder = broken("_C")
    said = import_error(folder)
    assert "_C.so is missing" in said and said.endswith(REBUILD)
    findings, at_fault = doctor(folder)
    assert (
        at_fault == ["libraries"]
        and "_C.so is missing" in findings["libraries"]["found"]
        and findings["libraries"]["fix"] == REBUILD
    )
    assert findings["torch"]["verdict"] == "ok" and "host compiler" in findings


@pytest.mark.parametrize("editable", [False, True])
def test_another_installation_is_named(tmp_path, monkeypatch, editable):
    """pip's convlab is not the one that runs in this checkout."""
    record = tmp_path / "convlab-0.2.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: convlab\nVersion: 0.2.0\n")
    other = tmp_path / "a b" if editable else tmp_path
    if editable:
        (record / "direct_url.json").write_text(json.dumps({"url": other.as_uri(), "dir_info": {"editable": True}}))
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = packages.elsewhere()
    assert finding.verdict == "note" and f"another convlab, {other / 'convlab'}, which" in finding.found
    how = "--no-build-isolation --config-settings editable_mode=compat"
    assert finding.fix == f"pip install {how} -e {PACKAGE.parent}"
    monkeypatch.setattr(libraries, "FOLDER", other / "convlab")
    assert packages._installed() == other / "convlab" and packages.elsewhere() == []


def test_a_library_that_is_cut_short(broken, monkeypatch):
    whole = (PACKAGE / "_C.so").read_bytes()
    folder = broken("_C", whole[: len(whole) // 2])
    said = import_error(folder)
    assert "_C.so is damaged or cut short" in said and said.endswith(REBUILD)
    monkeypatch.setattr(libraries, "FOLDER", folder / "convlab")
    assert packages.own_libraries().fix == REBUILD
    for name, file in libraries.FILES.items():
        (folder / "convlab" / file).unlink()
        assert "is missing" in libraries.fault(name)
        whole = (PACKAGE / file).read_bytes()
        for contents in (b"", b"nonsense" * 100, whole[:1000], whole[:-1]):
            (folder / "convlab" / file).write_bytes(contents)
            assert "is damaged or cut short" in libraries.fault(name)
        (folder / "convlab" / file).write_bytes(whole)
        assert libraries.fault(name) is None
    (folder / "convlab" / "_sim.so").unlink()
    with pytest.raises(RuntimeError, match=r"_sim.so is missing.*pip install"):
        simulator._Library("_sim")


@works_with("a torch that was changed after the build: the same library loads, or names both versions")
def test_a_library_that_does_not_load(broken, tmp_path):
    cxx = shutil.which("g++")
    if cxx is None:
        pytest.skip("needs g++")
    source = tmp_path / "undefined.cpp"
    source.write_text('extern "C" void symbol_of_another_torch(); void f() { symbol_of_another_torch(); }')
    subprocess.run(
        [cxx, "-shared", "-fPIC", "-Wl,-z,now", str(source), "-o", str(tmp_path / "undefined.so")], check=True
    )
    said = import_error(broken("_C", (tmp_path / "undefined.so").read_bytes()))
    assert "symbol_of_another_torch" in said and said.endswith(REBUILD)
    assert (
        f"built with torch {convlab.build_info()['torch_built']}" in said
        and f"beside torch {torch.__version__}" in said
    )


def test_a_library_for_another_python(broken):
    folder = broken("_lab")
    (folder / "convlab" / "_lab.cpython-39-x86_64-linux-gnu.so").write_bytes(b"")
    said = import_error(folder)
    assert "built for another Python (_lab.cpython-39-x86_64-linux-gnu.so)" in said and said.endswith(REBUILD)


def test_a_torch_that_is_too_old(broken):
    folder = old_torch(broken())
    said = import_error(folder)
    assert "needs torch >= 2.11" in said and "2.10.1+cu128" in said and said.endswith("pip install --upgrade torch")
    findings, at_fault = doctor(folder)
    assert (
        at_fault == ["torch"]
        and "2.10.1+cu128" in findings["torch"]["found"]
        and findings["torch"]["fix"] == "pip install --upgrade torch"
    )
    assert findings["libraries"]["verdict"] == "ok"


def test_no_torch(broken):
    folder = broken()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    assert import_error(folder).endswith("pip install 'torch>=2.11'")
    findings, at_fault = doctor(folder)
    assert at_fault == ["torch"] and findings["torch"]["fix"] == "pip install 'torch>=2.11'"


def test_a_torch_that_cannot_be_imported(broken):
    folder = old_torch(broken(), "2.15.0")
    (folder / "torch" / "__init__.py").write_text("import os\nos.abort()\n")
    findings, at_fault = doctor(folder)
    assert at_fault == ["torch"] and "SIGABRT" in findings["torch"]["found"]


def test_how_threads_wait(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert packages.threads().verdict == "note" and packages.threads().fix == "export OMP_WAIT_POLICY=PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert packages.threads() == ("threads", "ok", "wait as OMP_WAIT_POLICY=PASSIVE says", "")
    monkeypatch.setenv("GOMP_SPINCOUNT", "3000")
    assert packages.threads().found == "wait as GOMP_SPINCOUNT=3000 says"


def test_other_programs_of_the_package_are_as_strict_as_an_import(broken):
    done = python(broken("_C"), "-m", "convlab.bench", "overhead")
    assert done.returncode == 1 and "_C.so is missing" in done.stderr.strip().splitlines()[-1]


@pytest.fixture
def checkout(tmp_path):
    """A source tree without libraries, and in site/ a convlab that is installed."""
    folder, site = tmp_path / "checkout", tmp_path / "site"
    for package in (folder / "convlab", site / "convlab"):
        package.mkdir(parents=True)
        for entry in PACKAGE.iterdir():
            if package.parent == site or entry.suffix != ".so":
                (package / entry.name).symlink_to(entry)
    for name in ("setup.py", "train_lenet.py"):
        shutil.copy(PACKAGE.parent / name, folder)
    return folder


WAYS = {  # to come by the source tree: (folder to run in, arguments)
    "import": (".", ["-c", "import convlab"]),
    "script": (".", ["train_lenet.py", "--help"]),
    "script elsewhere": ("..", ["checkout/train_lenet.py", "--help"]),
    "program": (".", ["-m", "convlab.bench", "--help"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_source_tree_in_front_of_an_installation(checkout, way):
    where, arguments = WAYS[way]
    site = checkout.parent / "site"
    done = python(checkout / where, *arguments, PYTHONPATH=str(site))
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    here = f"convlab: {checkout / 'convlab'} is not built, and Python finds it before the convlab that is installed in"
    assert f"{here} {site / 'convlab'}: " in said and said.endswith("setup.py build_ext --inplace"), said
    if sys.version_info < (3, 11):
        assert "run outside of it" in said
    else:  # what it says helps
        assert "leave it out with python -P, or build it" in said
        done = python(checkout / where, "-P", *arguments, PYTHONPATH=str(site))
        assert done.returncode == 0, done.stderr


def test_a_source_tree_in_front_of_an_installation_by_pythonpath(checkout, tmp_path):
    both = os.pathsep.join([str(checkout), str(checkout.parent / "site")])
    done = python(tmp_path, "-c", "import convlab", PYTHONPATH=both)
    assert done.returncode == 1 and f": take {checkout} out of PYTHONPATH, or build it" in done.stderr, done.stderr


def test_the_doctor_in_a_source_tree_in_front_of_an_installation(checkout):
    done = python(checkout, "-m", "convlab.doctor", "--json", PYTHONPATH=str(checkout.parent / "site"))
    (found,) = (f for f in json.loads(done.stdout)["findings"] if f["verdict"] == "fault")
    assert done.returncode == 1 and found["name"] == "libraries" and "is not built" in found["found"]
    assert found["fix"].startswith("leave it out with" if sys.version_info >= (3, 11) else "run outside of it")


def test_a_source_tree_that_is_not_built(checkout):
    """And nothing else is there: it is built where it is."""
    said = import_error(checkout, "-S")  # without what this Python has installed
    assert "_C.so is missing" in said and said.endswith(f"python {checkout / 'setup.py'} build_ext --inplace")


# ---- single checks
# ----------------------------------------------------------------------------------------------------


@works_with("CUDA tensors where convlab was built without CUDA: refused, with the command that builds it")
def test_cuda_tensors_in_a_build_for_the_cpu():
    with pytest.raises(RuntimeError, match=r"built without CUDA because nvcc was not found.*CONVLAB_CUDA=1 p"):
        ops._refuse_cuda()
    for op in set(ops.ALL) - ops.ON_THE_CPU:  # by a kernel, or by that refusal
        assert torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CUDA")


@works_with("a GPU whose architecture was not compiled: named, with the command that compiles for it")
@pytest.mark.parametrize(
    "capability, torch_, build, words, fix",
    [
        ("8.6", TORCH, BUILD, "8.6, of 7.5 8.0 9.0+PTX", ""),
        ("12.0", TORCH, BUILD, "12.0, of", ""),
        (
            "7.0",
            TORCH,
            BUILD,
            "compiled for 7.5 8.0 9.0+PTX, which A GPU (7.0) does not run",
            libraries.rebuild("TORCH_CUDA_ARCH_LIST='7.0' CONVLAB_CUDA=1"),
        ),
        (
            "8.9",
            TORCH,
            {**BUILD, "cuda": False, "cuda_archs": []},
            "built without CUDA",
            libraries.rebuild("TORCH_CUDA_ARCH_LIST='8.9' CONVLAB_CUDA=1"),
        ),
        (
            "8.9",
            TORCH._replace(cuda=None, gpu=False),
            BUILD,
            "is for the CPU alone",
            "pip install --force-reinstall torch",
        ),
        (
            "8.9",
            TORCH._replace(gpu=False, complaint="driver too old"),
            BUILD,
            "driver too old",
            "install a driver for CUDA 13.2",
        ),
    ],
)
def test_gpu_architectures(capability, torch_, build, words, fix):
    found = gpu.architectures([gpu.Gpu("A GPU", capability)], torch_, build)
    assert found.verdict == ("fault" if fix else "ok") and words in found.found and found.fix.startswith(fix)
    assert gpu.architectures([], torch_, build).verdict == "note"


@pytest.mark.parametrize(
    "archs, capability, runs",
    [
        (["8.0"], "8.9", True),
        (["8.9"], "8.0", False),
        (["8.0"], "9.0", False),
        (["8.0+PTX"], "9.0", True),
        (["9.0+PTX"], "8.0", False),
        (["9.0a"], "9.0", True),
        (["9.0a"], "10.0", False),
        (["9.0a+PTX"], "10.0", False),
        (["7.5", "12.0"], "12.1", True),
        ([], "9.0", False),
    ],
)
def test_runs_on(archs, capability, runs):
    assert toolchain.runs_on(archs, capability) == runs


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_drivers(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H100, 9.0, 580.65.06'; echo 'NVIDIA L4, 8.9, 580.65.06'")
    found, gpus = gpu.driver()
    assert (
        found.verdict == "ok" and "580.65.06" in found.found and gpus == [("NVIDIA H100", "9.0"), ("NVIDIA L4", "8.9")]
    )
    program(tmp_path, "nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    found, gpus = gpu.driver()
    assert found.verdict == "fault" and "version mismatch" in found.found and not gpus
    (tmp_path / "nvidia-smi").unlink()
    assert gpu.driver()[0].verdict == "note"


def nvcc(version="13.0.88", path="/usr/bin/true"):
    return toolchain.Nvcc(str(path), version, [], [], "libcudart_static.a", [])


@works_with("nvcc and torch of different CUDA versions: said before anything is built")
def test_nvcc_of_another_cuda(monkeypatch):
    monkeypatch.setattr(toolchain, "choose_nvcc", lambda environ, cxx: (nvcc("12.8.90"), ""))
    found = building.nvcc("g++", "13.2")
    assert (
        found.verdict == "note" and "12.8.90" in found.found and "CUDA 13.2" in found.found and "CUDA_HOME" in found.fix
    )
    assert building.nvcc("g++", "12.6").verdict == building.nvcc("g++", None).verdict == "ok"


@works_with("a host compiler that is too new for nvcc: named, with what to do")
def test_a_host_compiler_that_nvcc_does_not_take(tmp_path, monkeypatch):
    path = program(
        tmp_path,
        "nvcc",
        "echo 'host_config.h:137:2: error: #error -- unsupported GNU version! gcc versions later than 15 are not' >&2; exit 1",
    )
    monkeypatch.setattr(toolchain, "choose_nvcc", lambda environ, cxx: (nvcc(path=path), ""))
    found = building.nvcc("/usr/bin/g++", "13.2")
    assert (
        found.verdict == "note"
        and "does not take /usr/bin/g++: unsupported GNU version" in found.found
        and "CXX" in found.fix
    )


def test_no_nvcc_no_compiler_no_ninja(monkeypatch):
    monkeypatch.setattr(toolchain, "choose_nvcc", lambda environ, cxx: (None, "no nvcc in PATH"))
    assert (
        building.nvcc("g++", "13.2").fix.startswith("pip install 'nvidia-cuda-nvcc==13.2.*'")
        and "toolkit" in building.nvcc("g++", "12.4").fix
    )
    monkeypatch.setattr(toolchain, "package", lambda name: None)
    assert building.ninja()[1:] == (
        "note",
        f"ninja and pybind11 not installed in {sys.prefix}; to build",
        "pip install ninja pybind11",
    )
    monkeypatch.setenv("CXX", "g++-none")
    found, cxx = building.host_compiler()
    assert (
        found.verdict == "note"
        and "g++-none is not on PATH" in found.found
        and "apt install g++" in found.fix
        and cxx is None
    )
    assert building.nvcc(None, "13.2").verdict == "note"
    monkeypatch.setattr(toolchain, "free_gb", lambda: 0.4)
    assert building.memory().verdict == "note"


def test_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert packages.python().verdict == "fault" and "3.10" in packages.python().fix


def test_torchvision():
    assert packages.torchvision(TORCH).verdict == "ok" and packages.torchvision(None).verdict == "note"
    assert packages.torchvision(TORCH._replace(torchvision=None)).fix == "pip install torchvision"
    found = packages.torchvision(TORCH._replace(torchvision=["error", "operator torchvision::nms does not exist"]))
    assert found.verdict == "fault" and "nms" in found.found and "torchvision" in found.fix


def test_forced_instruction_sets(monkeypatch):
    assert packages.instruction_set(BUILD).verdict == "ok"
    assert "AMX" in packages.instruction_set(BUILD | {"amx": True}).found
    monkeypatch.setenv("CONVLAB_CPU", "baseline")
    assert packages.instruction_set(BUILD).fix == "unset CONVLAB_CPU"


def test_self_tests_that_fail():
    said = [
        {"starts": "conv2d, CPU"},
        {"name": "conv2d, CPU", "error": 3e-7},
        {"starts": "relu, CPU"},
        {"name": "relu, CPU", "error": 0.5},
        {"starts": "avg_pool2d, CPU"},
        {"name": "avg_pool2d, CPU", "failure": "no memory"},
        {"starts": "max_pool2d, CPU"},
    ]
    findings = list(_tests(said, "the process died of SIGILL"))
    assert [(f.name, f.verdict) for f in findings] == [
        ("conv2d, CPU", "ok"),
        ("relu, CPU", "fault"),
        ("avg_pool2d, CPU", "fault"),
        ("max_pool2d, CPU", "fault"),
    ]
    assert "SIGILL" in findings[-1].found


def test_children_that_die(monkeypatch):
    assert child.run("-c", "print(1)") == (["1"], "")
    assert child.run("-c", "raise ImportError('gone')").failure == "gone"
    assert child.run("-c", "import os; os.abort()").failure == "the process died of SIGABRT"
    monkeypatch.setattr(child, "SECONDS", 1)
    assert "did not end" in child.run("-c", "import time; time.sleep(60)").failure


# ---- memory
# -----------------------------------------------------------------------------------------------------------


@works_with("out of memory: an error with the number of bytes, and what needs none")
def test_no_memory_for_packed_weights():
    """In a process that may take next to nothing more."""
    script = (
        "import resource, torch, convlab.functional as CF\n"
        "torch.set_num_threads(1)\n"
        "x, w = torch.randn(1, 1024, 40, 40), torch.empty(4096, 1024, 3, 3)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)\n"
        "try:\n"
        "    CF.conv2d(x, w, algo='register_tiled')\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
        "print(CF.conv2d(x[:, :8], w[:8, :8].contiguous(), algo='register_tiled').shape)\n"
    )
    said = child.run("-c", script)
    assert not said.failure and said.lines[1] == "torch.Size([1, 8, 38, 38])", said
    assert "the system has no 15" in said.lines[0] and "algo='reference'" in said.lines[0]


@pytest.mark.cuda
@works_with("out of memory: an error with the number of bytes, and what needs none")
def test_no_memory_for_a_workspace():
    """In a process of its own, where torch keeps nothing that would do for it."""
    script = (
        "import torch, convlab.functional as CF\n"
        "x, w = torch.randn(64, 256, 32, 32, device='cuda'), torch.randn(512, 256, 3, 3, device='cuda')\n"
        "CF.conv2d(x, w, algo='direct')\n"  # leaves room for an output
        "free, total = torch.cuda.mem_get_info()\n"
        "torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**20) / total)\n"
        "try:\n"
        "    CF.conv2d(x, w, algo='im2col_gemm')\n"
        "except RuntimeError as error:\n"
        "    print(str(error).splitlines()[0])\n"
        "print(CF.conv2d(x, w, algo='direct').shape)\n"
        "print(torch.cuda.memory_summary())\n"
    )
    said = child.run("-c", script)
    assert not said.failure and said.lines[1] == "torch.Size([64, 512, 30, 30])", said
    assert re.search(r"no \d+ bytes for a workspace.*algo='direct'", said.lines[0]), said
