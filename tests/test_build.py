"""The build: what the libraries depend on, what a build that cannot be says, how it chooses."""

import ast
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import convlab
from convlab import toolchain

ROOT = Path(__file__).parent.parent

C_SO = Path(convlab.__file__).with_name("_C.so")
KNOWN = ["75", "80", "86", "90", "100"]


# ---- the libraries
# ----------------------------------------------------------------------------------------------------


def binutil(tool, *arguments):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} (binutils) is not on PATH")
    return subprocess.run([tool, *arguments, str(C_SO)], check=True, capture_output=True, text=True).stdout


@pytest.mark.works_with("a torch that was changed after the build: the same library loads, or names both versions")
def test_only_the_stable_abi_of_torch():
    needed = binutil("nm", "-D", "--undefined-only").split()
    cxx_of_torch = [symbol for symbol in needed if re.search(r"^_Z.*(3c10|2at|5torch)", symbol)]
    assert not cxx_of_torch
    assert any(symbol.startswith("torch_") for symbol in needed)  # the search above looked at the right thing


def test_cuda_runtime_stays_inside():
    """A libcudart of another version may be in the process, torch's own: neither may answer for the other."""
    assert not re.search(r" cuda\w+$", binutil("nm", "-D"), re.M)
    needed = re.findall(r"NEEDED.*\[(.*)\]", binutil("readelf", "-d"))
    assert not [name for name in needed if "cuda" in name or "c10" in name]
    assert "libtorch.so" in needed  # brings libtorch_cuda.so, and with it the stream function, into scope


@pytest.mark.skipif(toolchain.wants_cuda(os.environ) != "1", reason="CONVLAB_CUDA=1 is not set")
def test_cuda_was_built_where_it_was_asked_for():
    info = convlab.build_info()
    assert info["cuda"] and info["nvcc"] and info["cuda_archs"]


def test_build_info_agrees_with_the_library():
    info = convlab.build_info()
    assert bool(info["cuda"]) == bool(info["nvcc"]) == bool(info["cuda_archs"])
    assert info["cuda"] == ("aoti_torch_get_current_cuda_stream" in binutil("nm", "-D"))


@pytest.mark.skipif(not (ROOT / "build" / "compile_commands.json").exists(), reason="the build folder is gone")
def test_the_commands_for_clangd_have_every_source():
    commands = json.loads((ROOT / "build" / "compile_commands.json").read_text())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.c*") if path.suffix in (".cpp", ".cu")}
    known = {command["file"] for command in commands}
    assert {file for file in known if not (ROOT / file).exists()} == set()
    with_a_kernel = "csrc/testing/", "csrc/simulator/plain/"  # compiled with somebody's kernel, by the check of it
    assert {file for file in sources if not file.startswith(with_a_kernel)} <= known
    assert all("-Icsrc" in command["command"] for command in commands)


# ---- refusals
# ---------------------------------------------------------------------------------------------------------


def refusal(tmp_path, hide=(), fake_torch=None, **environ):
    """What `setup.py` says, which must be one line, with some packages hidden from it or an old torch in front of
    it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {hide!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    if fake_torch:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "__init__.py").touch()
        (tmp_path / "torch" / "version.py").write_text(f"__version__ = {fake_torch!r}\ncuda = None\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "setup.py"), "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), **environ},
    )
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("convlab: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.works_with("a build without torch: one sentence, with the command that helps")
def test_no_torch(tmp_path):
    said = refusal(tmp_path, hide=("torch",))
    assert "needs torch >= 2.11" in said and "pip install --no-build-isolation ." in said


def test_torch_too_old(tmp_path):
    said = refusal(tmp_path, fake_torch="2.10.0+cu128")
    assert "needs torch >= 2.11" in said and "has 2.10.0" in said


def test_no_ninja_and_no_pybind11(tmp_path):
    assert "pip install ninja pybind11," in refusal(tmp_path, hide=("ninja", "pybind11"))


def test_no_compiler(tmp_path):
    said = refusal(tmp_path, CXX="g++-none")
    assert "g++-none is not on PATH" in said and "apt install g++" in said


def test_old_python_and_other_systems(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 9, 2))
        with pytest.raises(SystemExit, match=r"convlab: needs Python >= 3\.10; this is 3\.9"):
            toolchain.check_machine(os.environ)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match="convlab: builds on Linux; this is win32"):
        toolchain.check_machine(os.environ)


@pytest.mark.parametrize("file", ["setup.py", "convlab/toolchain.py"])
def test_what_refuses_an_old_python_can_be_read_by_one(file):
    ast.parse((ROOT / file).read_text(), feature_version=(3, 7))


# ---- the compiler that CXX names


def executable(path, answers):
    """A script that answers `-dumpversion` and `--version`, and runs what is behind a launcher's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{answers}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def on_path(tmp_path):
    executable(tmp_path / "bin" / "ccache", 'exec "$@"')
    executable(tmp_path / "bin" / "g++", "echo 13")
    return {"PATH": str(tmp_path / "bin")}


@pytest.mark.parametrize(
    "cxx, launcher, flags",
    [
        (None, [], []),
        ("", [], []),
        (" g++ ", [], []),
        ("ccache g++", ["ccache"], []),
        ("g++ -m64 '-DA=B C'", [], ["-m64", "-DA=B C"]),
        ("ccache g++ -march=native", ["ccache"], ["-march=native"]),
    ],
)
def test_cxx(cxx, launcher, flags, on_path, tmp_path):
    found = toolchain.find_cxx({**on_path, **({} if cxx is None else {"CXX": cxx})})
    assert found == (str(tmp_path / "bin" / "g++"), "13", launcher, flags)


def test_cxx_with_a_blank_in_its_path(on_path, tmp_path):
    path = executable(tmp_path / "my tools" / "g++", "echo 12.2")
    assert toolchain.find_cxx({**on_path, "CXX": path}) == (path, "12.2", [], [])
    assert toolchain.find_cxx({**on_path, "CXX": f"ccache '{path}' -O1"}) == (path, "12.2", ["ccache"], ["-O1"])


def test_cxx_that_is_no_compiler(on_path, tmp_path):
    executable(tmp_path / "bin" / "true", "exit 0")
    executable(tmp_path / "bin" / "old", "echo 9")
    for cxx, said in {
        "true": "true does not say its version",
        "ccache": "ccache does not say its version",
        "ccache clang++": "clang\\+\\+ is not on PATH",
        "sccache g++": "sccache is not on PATH",
        "old": "g\\+\\+ >= 11 .*old is 9",
    }.items():
        with pytest.raises(SystemExit, match=said):
            toolchain.find_cxx({**on_path, "CXX": cxx})


def test_launcher_and_flags_reach_every_rule(tmp_path, monkeypatch):
    """But not the launcher that of nvcc, whose host compiler is a path and flags."""
    monkeypatch.chdir(ROOT)
    setup = runpy.run_path("setup.py")
    cxx = toolchain.Compiler("/bin/g++", "13", ["ccache"], ["-m64"])
    nvcc = toolchain.Nvcc("/bin/nvcc", "13.0.88", KNOWN, [], "libcudart_static.a", [])
    libraries = setup["libraries"](toolchain.Torch("2.14", "13.0", "include", "lib"), cxx, nvcc, ["8.0"])
    sources = setup["write_graph"](str(tmp_path / "build.ninja"), cxx, nvcc, libraries)
    graph = re.sub(r"\$\n *", "", (tmp_path / "build.ninja").read_text())
    commands = dict(re.findall(r"^rule (\w+)\n  command = (.*)", graph, re.M))
    assert commands["cxx"].startswith("ccache /bin/g++ -m64 $flags")
    assert commands["link"].startswith("ccache /bin/g++ -m64 -o $out")
    assert commands["nvcc"].startswith("/bin/nvcc $flags")
    seconds = [setup["seconds_for"](source) for source in re.findall(r"^build .*: (?:nvcc|cxx) (.*)", graph, re.M)]
    assert seconds == sorted(seconds, reverse=True)
    assert {os.path.basename(source) for source in sources} >= set(setup["COMPILE_SECONDS"])
    kernels = re.findall(r"^build .*: nvcc .*\n  flags = (.*)", graph, re.M)
    assert kernels and all("-ccbin /bin/g++ -Xcompiler -m64" in flags for flags in kernels)


# ---- nvcc, architectures, jobs
# ----------------------------------------------------------------------------------------


def no_nvcc(monkeypatch):
    monkeypatch.setattr(
        toolchain, "nvcc_candidates", lambda environ: [("PATH", ""), ("/usr/local/cuda", "/none/bin/nvcc")]
    )


@pytest.mark.works_with("a machine without nvcc or a GPU: CPU kernels and simulator, and a build that says so")
def test_no_nvcc(monkeypatch):
    no_nvcc(monkeypatch)
    assert toolchain.choose_nvcc({}, "g++") == (None, "no nvcc in PATH or /usr/local/cuda")
    for environ in ({"CONVLAB_CUDA": "1"}, {"FORCE_CUDA": "1"}):
        with pytest.raises(
            SystemExit, match="convlab: CONVLAB_CUDA=1 asks for the CUDA kernels, but there is no nvcc in PATH"
        ):
            toolchain.choose_nvcc(environ, "g++")


def test_an_nvcc_that_cannot_be_used_is_passed_over(tmp_path, monkeypatch):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 11.8, V11.8.89'\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(toolchain, "nvcc_candidates", lambda environ: [("PATH", str(nvcc))])
    chosen, reason = toolchain.choose_nvcc({}, "false")
    assert chosen is None and "cuda_runtime.h" in reason and str(nvcc) in reason
    whole = toolchain.Nvcc(str(nvcc), "11.8.89", [], [], "libcudart_static.a", [])
    assert "11.8.89" in toolchain.unusable(whole) and toolchain.unusable(whole._replace(version="12.0.140")) is None


def test_wants_cuda():
    assert toolchain.wants_cuda({}) == toolchain.wants_cuda({"CONVLAB_CUDA": ""}) == "auto"
    assert toolchain.wants_cuda({"CONVLAB_CUDA": "0", "FORCE_CUDA": "1"}) == "0"
    with pytest.raises(SystemExit, match="CONVLAB_CUDA is 'yes': expected auto, 1 or 0"):
        toolchain.wants_cuda({"CONVLAB_CUDA": "yes"})


def test_nvcc_from_pypi_is_of_torchs_cuda():
    assert toolchain.nvcc_packages("13.2")[0] == "nvidia-cuda-nvcc==13.2.*"
    assert toolchain.nvcc_packages("13.2")[-1] == "nvidia-cuda-cccl>=13.2,<14"
    assert toolchain.nvcc_packages(None)[0] == "nvidia-cuda-nvcc==13.*"
    assert toolchain.nvcc_packages("12.8") == []  # other package names, another layout


@pytest.mark.parametrize(
    "text, kept, dropped",
    [
        ("7.5;8.0;9.0+PTX", ["7.5", "8.0", "9.0+PTX"], []),
        ("8.0 9.0a", ["8.0", "9.0a"], []),
        ("8.0+PTX,9.0", ["8.0+PTX", "9.0"], []),
        ("7.0;8.0", ["8.0"], ["7.0"]),
        ("8.0;9.0;12.0+PTX", ["8.0", "9.0+PTX"], ["12.0"]),
        ("10.0;9.0;12.0+PTX", ["10.0+PTX", "9.0"], ["12.0"]),
        ("8.6;", ["8.6"], []),
        (" ; 8.0,, 9.0 ", ["8.0", "9.0"], []),
        ("Ampere", ["8.0", "8.6+PTX"], []),
        ("Turing;Hopper 10.0a", ["7.5+PTX", "9.0+PTX", "10.0a"], []),
        ("Volta;8.0", ["8.0+PTX"], ["7.0"]),
        ("", ["8.0", "9.0+PTX"], []),
    ],
)
def test_architectures(text, kept, dropped):
    assert toolchain.parse_archs(text, KNOWN) == (kept, dropped)


def test_architectures_refused():
    with pytest.raises(
        SystemExit, match=r"expected compute capabilities such as .* or names \(.*Hopper.*\), not 'Fermi'"
    ):
        toolchain.parse_archs("8.0;Fermi", KNOWN)
    with pytest.raises(SystemExit, match=r"compiles for none of TORCH_CUDA_ARCH_LIST='5.0'; it knows 7.5, .*10.0"):
        toolchain.parse_archs("5.0", KNOWN)


@pytest.mark.parametrize(
    "said, archs",
    [
        ("8.9\\n9.0\\n8.9\\n", ""),  # which this nvcc does not know
        ("9.0\\n8.0\\n9.0\\n", "8.0;9.0+PTX"),
        ("10.0\\n8.6\\n", "8.6;10.0+PTX"),
        ("No devices were found\\n", ""),
        ("", ""),
    ],
)
def test_architectures_of_the_gpus_here(said, archs, tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{said}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert toolchain.archs_here(KNOWN) == archs


def test_what_a_build_under_pip_says_on_the_terminal(monkeypatch):
    """A line at once, then every 20 seconds, with an estimate that knows which files take long; and nothing where it is
    not pip that builds."""
    setup = runpy.run_path(str(ROOT / "setup.py"))
    terminal = io.StringIO()
    longest = [f"csrc/kernels/{name}" for name in setup["COMPILE_SECONDS"] if name.endswith(".cu")]
    sources = [*longest, *(f"csrc/kernels/{n}.cu" for n in range(len(longest), 40))]
    progress = setup["Progress"](terminal, 100.0, sources)
    for done in range(1, 21):
        now = 100 + sum(setup["seconds_for"](source) for source in sources[:done]) / 2  # two at a time
        progress.line(f"[{done}/40] nvcc {sources[done - 1]}\n", now)
        progress.line("a warning\n", now)
    assert terminal.getvalue().replace("\r", "").splitlines() == [
        "convlab: compiled 1 of 40, nvcc csrc/kernels/conv2d_register_tiled.cu",
        "convlab: compiled 3 of 40, nvcc csrc/kernels/conv2d_depthwise.cu, about 2 min left",
        "convlab: compiled 6 of 40, nvcc csrc/kernels/conv2d_warpgroup.cu, about 1 min left",
        "convlab: compiled 11 of 40, nvcc csrc/kernels/10.cu, about 1 min left",
    ]
    for name in ("_PYPROJECT_HOOKS_BUILD_BACKEND", "PEP517_BUILD_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    assert setup["terminal"]() is None
    assert (setup["minutes"](59.9), setup["minutes"](643.2)) == ("0 min 59 s", "10 min 43 s")


def test_gencode():
    assert toolchain.gencode(["8.0", "9.0a+PTX"]) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_90a,code=compute_90a",
    ]
    assert toolchain.gencode(["8.9", "8.0", "9.0+PTX"]) == [
        "-gencode=arch=compute_80,code=sm_89",
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_80,code=sm_90",
        "-gencode=arch=compute_80,code=compute_80",
    ]
    assert toolchain.gencode(["7.5", "10.3", "10.0+PTX"]) == [
        "-gencode=arch=compute_75,code=sm_75",
        "-gencode=arch=compute_100,code=sm_103",
        "-gencode=arch=compute_100,code=sm_100",
        "-gencode=arch=compute_100,code=compute_100",
    ]


@pytest.mark.works_with("a build on a machine with little memory: as many compilers as fit")
def test_jobs():
    assert toolchain.jobs({}, cores=8, gigabytes=64.0)[0] == 8
    assert toolchain.jobs({}, cores=64, gigabytes=4.5)[0] == 4
    assert toolchain.jobs({}, cores=2, gigabytes=0.3)[0] == 1
    assert toolchain.jobs({}, cores=2, gigabytes=None)[0] == 2
    assert toolchain.jobs({"MAX_JOBS": "3"}, cores=64, gigabytes=64.0)[0] == 3
    with pytest.raises(SystemExit, match="MAX_JOBS is 'many'"):
        toolchain.jobs({"MAX_JOBS": "many"}, cores=1, gigabytes=1.0)
