"""Every command of the README, of the pages in docs/ and of `make help` does what it is there for.

Each runs as it stands there, in a copy of the checkout; what is not run, or not as it stands, is listed here with its
reason.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import checkout
import pytest
import torch
from commands import COMMANDS, ROOT, commands_of, targets

import tools
from tools import links

pytestmark = pytest.mark.skipif(
    "CONVLAB_IN_A_COMMAND" in os.environ, reason="a command that runs the tests need not run the commands"
)
GPU = torch.cuda.is_available()

NOT_RUN = {
    "apt install git make g++ python3 python3-venv python3-dev": "is for root, and changes the machine",
}
# Of the environment that make makes, torch is a download of gigabytes: here it takes the one that these tests run in.
# The libraries it takes as they are, too, but for what compiles or installs. There pip builds with the torch that is
# there; `pip install .` would download one to build with.
MAKE = "make -o build -o nvcc"
COMPILING = [
    "make build",
    "pip install --no-build-isolation .",
    "pip install .",
    "pip install '.[train]'",
    "pip install setuptools ninja pybind11 && pip install --no-build-isolation .",
    "pip wheel --no-build-isolation --no-deps .",
    "make mutants",
    "make sanitize",
]
ALONE = ["pip install rich"]
A_RUNG = [
    command
    for page in ("add-a-rung.md", "add-a-cpu-algorithm.md", "add-an-operator.md")
    for command in commands_of(ROOT / "docs" / page)
    if command not in ("make build", "make sanitize")
]  # by test_docs.py

# What takes hours, or the tests' own time again, does a part of it.
LESS = {
    "make test": 'ARGS="tests/test_leaky_relu.py"',
    "make test-long": 'ARGS="tests/test_train_resume.py -k ctrl_c_in_a_terminal"',
    "make test-versions": 'ARGS="--here tests/test_flops.py"',
    "make bench": 'ARGS="conv lenet-c3 --quick --no-save"',
    "make mutants": 'ARGS="--sample 2"',
    "python -m convlab.bench cpu conv bf16": "lenet-c3 --quick --no-save",
    "python -m convlab.bench cpu conv bfloat16": "lenet-c3 --quick --no-save",
    "python -m convlab.bench survey --sample 100": "--sample 2 --quick --no-save",
    "python -m convlab.bench models": "squeezenet1_1 inference nchw --threads 1 --quick --no-save",
    "make sanitize": 'ARGS="-k watched"',
    "make gpu-test": 'ARGS="tests/test_cuda.py"',
    "make gpu-report": "STEP=subset",
    "python -m tools.gpu_report": "--step subset",
}
# Without a GPU: the exit status, and what a line says. It is make that ends with 2.
WITHOUT_A_GPU = {
    "make gpu-test": (2, "sees no GPU: gpu-test needs one"),
    "make gpu-report": (2, "gpu-report: no GPU"),
    "python -m tools.gpu_report": (3, "gpu-report: no GPU"),
    "python -m convlab.bench gpu": (3, "no GPU"),
    "python -m convlab.bench gpu tiles": (3, "no GPU"),
    "python -m convlab.bench gpu conv resnet-64@64 tf32 channels_last": (3, "no GPU"),
    "python train_lenet.py --data mnist --device cuda --amp bf16 --channels-last --compile --batch-size 256": (
        2,
        "torch finds no usable GPU",
    ),
}
STATUS = {
    "python -m convlab.check examples/conv2d/0_with_a_bug.cuh": 1,
    "python -m convlab.check my_assignment.cu --assignment 2": 1,  # as it was written: nothing done yet
}
LONG = [
    "python -m convlab.check my_kernel.cu --like conv2d_forward",
    "python -m convlab.explain lenet.c3@1024 --count",
    "python -m tools.prediction --choice",
    "make lint",
    "make bench",
    "make cifar",
    "make kernel-notes",
    'make lenet ARGS="--plots pictures"',
    "make test",  # mostly what runs this
    "make test-long",
    "make test-versions",
    "python -m convlab.bench cpu",
    "python -m tools.works_with --write",
    "python train_lenet.py --algo all --steps 4 --batch-size 16 --simulate",
    "python train_lenet.py --compare",
    "python train_lenet.py --resume",
    "torchrun --nproc-per-node 2 train_lenet.py",
]
SAYS = {
    "make lenet": "test accuracy 9",
    "make cifar": "test accuracy 9",
    "make test": " passed",
    "make test-long": " passed",
    "make test-versions": "torch this: passed",
    "python cifar_train.py --data cifar10 --optimizer sgd --init he --workers 2 --save-every 500 --tensorboard": "20 training and 3 test images, CIFAR-10 in",
    "python -m convlab.check my_program.cu": "as a program",
    "python train_lenet.py --resume": "resumed runs/lenet/last.pt after",
}
NEEDS = {
    r"(train_lenet|cifar_train)\.py|make (lenet|cifar|test-long)": ["sklearn", "torchvision", "tqdm"],
    "--tensorboard": ["tensorboard"],
    "bench models": ["torchvision"],
    "--compare|--plots|make cifar": ["matplotlib"],
    "make docs": ["material", "mkdocstrings"],
    "make (lint|format)": ["clang_format", "codespell_lib", "importlinter", "mypy", "ruff"],
    "make test": ["xdist"],
}


def test_the_lists_have_nothing_that_is_gone():
    listed = [*NOT_RUN, *COMPILING, *ALONE, *A_RUNG, *LESS, *WITHOUT_A_GPU, *STATUS, *LONG, *SAYS]
    assert set(listed) <= set(COMMANDS)
    assert {"make lenet", "pip install .", "python -m convlab.doctor"} <= set(COMMANDS) and len(COMMANDS) > 30
    assert all(len(reason) > 20 for reason in NOT_RUN.values())
    # what installs must not do it where these tests run
    assert {command for command in COMMANDS if "pip " in command} <= {*NOT_RUN, *COMPILING, *ALONE}


def test_help_names_every_target():
    phony = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert set(targets()) == {f"make {target}" for target in phony} - {"make help", "make nvcc"}


def test_a_tool_without_options_says_what_it_does(monkeypatch, capsys):
    """To --help, instead of doing it."""
    monkeypatch.setattr(sys, "argv", ["links", "--help"])
    monkeypatch.setattr(links.subprocess, "run", None)
    with pytest.raises(SystemExit) as ended:
        tools.run(links.main)
    assert not ended.value.code and capsys.readouterr().out.strip() == links.__doc__.strip()


# ---- one by one
# -------------------------------------------------------------------------------------------------------


def marked(command):
    marks = [pytest.mark.long] if command in LONG or (GPU and command in WITHOUT_A_GPU) else []
    if command.startswith("ncu") or (GPU and command in WITHOUT_A_GPU):
        marks.append(pytest.mark.cuda)
    return pytest.param(command, marks=marks, id=command.split("\n")[0])


@pytest.mark.parametrize(
    "command", [marked(command) for command in COMMANDS if command not in [*NOT_RUN, *COMPILING, *ALONE, *A_RUNG]]
)
def test_commands(command, tmp_path):
    look_for_what_it_needs(command)
    folder = checkout.copy(tmp_path / "convlab")
    prepare(command, folder)
    pages = {path: path.read_text() for path in [folder / "README.md", *(folder / "docs").glob("*.md")]}
    status, says = STATUS.get(command, 0), SAYS.get(command, "")
    if command in WITHOUT_A_GPU and not GPU:
        status, says = WITHOUT_A_GPU[command]
    said = run(command, folder, status)
    assert says in said and counts_in(said) >= counts_shown(command)
    if command == "make clean":
        assert not list((folder / "convlab").glob("*.so"))
    assert {path: path.read_text() for path in pages} == pages  # what writes into them finds them true


def counts_in(text):
    """(algorithm, megabytes) of each row of a training through every rung. Its times are the machine's, its losses
    nearly so."""
    return set(re.findall(r"^(\w+) .* ([\d.]+) MB .* ms$", text, re.M))


def counts_shown(command):
    """Those that the page on training shows behind a command."""
    _, _, behind = (ROOT / "docs" / "training.md").read_text().partition(f"$ {command}\n")
    return counts_in(behind.split("```")[0])


def test_counts_are_found():
    """So that the page's are compared."""
    assert len(counts_shown("python train_lenet.py --algo all --steps 4 --batch-size 16 --simulate")) == 9


@pytest.mark.long
@pytest.mark.parametrize(
    "command", [pytest.param(command, id=command) for command in COMMANDS if "--device cuda" in command]
)
def test_trainings_for_a_gpu_on_the_cpu(command, tmp_path):
    look_for_what_it_needs(command)
    folder = checkout.copy(tmp_path / "convlab")
    prepare(command, folder)
    assert "5 training and 3 test images, MNIST" in run(command.replace("--device cuda", "--device cpu"), folder)


def look_for_what_it_needs(command):
    for pattern, packages in NEEDS.items():
        if re.search(pattern, command):
            for package in packages:
                pytest.importorskip(package)
    if command.startswith("ncu") and not shutil.which("ncu"):
        pytest.skip("ncu is not on PATH")


def run(command, folder, status=0, **environment):
    whole = re.sub(r"^make(?! build)", MAKE, f"{command} {LESS.get(command, '')}".strip())
    return checkout.run(whole, folder, status, CONVLAB_CUDA="0", **environment)


# ---- what has to be there before
# --------------------------------------------------------------------------------------


def prepare(command, folder):
    if (name := re.search(r" (my_(?:kernel|assignment)\.\w+)", command)) and "--new" not in command:
        options = " ".join(re.findall(r"--(?:like|assignment) \w+", command))
        checkout.run(f"python -m convlab.check --new {name[1]} {options}", folder)
    if " my_program.cu" in command:
        shutil.copy(ROOT / "tests" / "student" / "reduction.cu", folder / "my_program.cu")
    if "--data mnist" in command:
        import tiny_data

        tiny_data.write_mnist(folder / "data")
    if "--data cifar10" in command:
        tiny_cifar10(folder)
    if "--resume" in command:
        stopped_training(command.replace("--resume", ""), folder)


def tiny_cifar10(folder):
    """Its archive in data/, and a torchvision that takes it for the one that was published."""
    import tiny_data

    files, attributes = tiny_data.cifar10()
    (folder / "data").mkdir()
    (folder / "data" / tiny_data.CIFAR10.filename).write_bytes(files[tiny_data.CIFAR10.filename])
    (folder / "sitecustomize.py").write_text(
        "from torchvision.datasets import CIFAR10\n"
        + "".join(f"CIFAR10.{name} = {value!r}\n" for name, value in attributes.items())
    )


def stopped_training(command, folder):
    """By Ctrl-C, after its first epoch."""
    with subprocess.Popen(
        command.split(), cwd=folder, env=checkout.environment(folder), stdout=subprocess.PIPE, text=True
    ) as training:
        log, deadline = folder / "runs" / "lenet" / "log.jsonl", time.monotonic() + 120
        while (
            training.poll() is None
            and time.monotonic() < deadline
            and not (log.exists() and log.read_text().count("\n") > 1)
        ):
            time.sleep(0.05)
        training.send_signal(signal.SIGINT)
        said = training.communicate(timeout=60)[0]
    assert training.returncode == 128 + signal.SIGINT and "continue with --resume" in said


# ---- what compiles and installs
# ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_commands_that_compile(tmp_path):
    """One after the other in one copy, so that it is compiled once."""
    folder = checkout.copy(tmp_path / "convlab")
    checkout.give_it_an_environment(folder)
    for path in (folder / "convlab").glob("*.so"):
        path.unlink()
    for command in COMPILING:
        if not command.startswith("pip"):
            run(command, folder)
            continue
        run(command, folder, PIP_NO_BUILD_ISOLATION="0", PYTHONPATH="")
        if command.startswith("pip wheel"):
            run("pip install --no-deps convlab-*.whl", folder, PYTHONPATH="")
        the_installed_package_works(folder)
        run("pip uninstall --yes convlab", folder, PYTHONPATH="")


def the_installed_package_works(folder):
    (elsewhere := folder.parent / "elsewhere").mkdir(exist_ok=True)
    environment = {**checkout.environment(folder), "PYTHONPATH": "", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        ["python", "-m", "convlab.doctor"], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and f"{folder}/.venv/" in re.search("libraries.*", done.stdout)[0], (
        done.stdout + done.stderr
    )


@pytest.mark.long
@pytest.mark.parametrize("command", ALONE)
def test_commands_that_install_something_else(command, tmp_path):
    """From the package index, into an environment that has nothing."""
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=tmp_path, check=True)
    environment = checkout.environment(tmp_path)
    done = subprocess.run(command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True)
    if done.returncode and "Retrying (Retry(" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    package = command.split()[-1]
    assert subprocess.run(["python", "-c", f"import {package}"], cwd=tmp_path, env=environment).returncode == 0
