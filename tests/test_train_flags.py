"""The training scripts' command lines: every option on a tiny run, what makes no sense, pictures, --compare, the
ladder."""

import os
import re
import subprocess
import sys
import warnings

import pytest
import torch

for needed in ("sklearn", "torchvision", "tqdm"):
    pytest.importorskip(needed)

import itertools

from scripts import CIFAR, LENET, ROOT, cifar, cifar_train, lenet, log, losses, train_lenet

import convlab
from convlab.training import ladder, options

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TINY = ["--images", "40", "--batch-size", "16"]
LAYERS = ["--algo", "direct", "--layers", "convlab", "--channels-last", "--compile", "aot_eager", "--device", "cpu"]
HOW = [
    "--optimizer",
    "adamw",
    "--lr",
    "0.001",
    "--loss",
    "label-distance",
    "--init",
    "xavier",
    "--seed",
    "3",
    "--epochs",
    "2",
]
KEPT = ["--save-every", "1", "--resume"]
RUNS = {  # one name a run; --out and what is a folder of the test's is added
    "everything": (lenet, ["--data", "digits", *LAYERS, *HOW, *KEPT, "--workers", "1", "--amp", "bf16"]),
    "float16": (lenet, ["--steps", "2", "--amp", "fp16", "--algo", "auto", "--prefetch"]),
    "torch": (
        lenet,
        ["--steps", "2", "--layers", "torch", "--optimizer", "sgd", "--init", "he", "--loss", "cross-entropy"],
    ),
    "convnet": (cifar, ["--data", "builtin", "--steps", "2"]),
    "resnet": (cifar, ["--data", "builtin", "--steps", "2", "--model", "resnet", "--amp", "bf16", "--channels-last"]),
}
ELSEWHERE = {
    "--help",
    "--data-dir",
    "--plots",
    "--tensorboard",
    "--compare",
    "--simulate",
    "--graph",
}  # have tests of their own


PARSER = options.parser("", {"digits": 1}, "", 1, {"sgd": 1.0}, models=["convnet"])


def options_of(parser):
    return {name for action in parser._actions for name in action.option_strings if name.startswith("--")}


def test_every_option_is_exercised():
    exercised = (
        {word for _, argv in RUNS.values() for word in [*argv, *TINY] if word.startswith("--")} | ELSEWHERE | {"--out"}
    )
    assert options_of(PARSER) == exercised


@pytest.mark.parametrize("name", RUNS)
def test_a_tiny_run(tmp_path, name, capsys):
    script, argv = RUNS[name]
    script(*TINY, *argv, "--out", tmp_path)
    header, epochs = log(tmp_path)
    assert all(0 < loss < 100 for loss in losses(tmp_path)) and len(epochs) == (2 if "--epochs" in argv else 1)
    for flag, value in itertools.pairwise(argv):
        if flag in ("--amp", "--lr", "--loss", "--seed", "--layers", "--algo", "--model"):
            assert str(header["options"][flag[2:]]) == value
    for epoch in epochs:
        assert 0 <= epoch["train_accuracy"] <= 1 and 0 <= epoch["test_accuracy"] <= 1 and epoch["images_per_second"] > 0
        assert len(epoch["dead"]) == {"convnet": 4, "resnet": 7}.get(name, 4) and all(
            0 <= share <= 1 for share in epoch["dead"].values()
        )
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"test accuracy \d+\.\d\d %", lines[-1])
    assert float(lines[-1].split()[2]) == pytest.approx(100 * epochs[-1]["test_accuracy"], abs=0.01)
    line = (
        r"epoch \d+/\d+  train loss \d+\.\d{4} accuracy +\d+\.\d\d %  test loss \d+\.\d{4} accuracy +\d+\.\d\d %  "
        r"dead [\d ]+ %  \d+ images/s"
    )
    assert sum(bool(re.fullmatch(line, text)) for text in lines) == len(epochs)


def test_ends_quietly_where_nobody_reads_on(tmp_path):
    command = f"'{sys.executable}' '{LENET}' {' '.join(TINY)} --out '{tmp_path}' | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    assert done.stdout.startswith("40 training and 40 test images") and done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_choices_change_what_they_should(tmp_path):
    """The same first loss where only the rounding may differ, another where weights or loss are others."""

    def first(*argv):
        name = "_".join(argv) or "plain"
        lenet(*TINY, "--steps", 1, "--out", tmp_path / name, *argv)
        return losses(tmp_path / name)[0]

    plain = first()
    for argv in (
        ["--layers", "torch"],
        ["--layers", "convlab-unfused"],
        ["--algo", "reference"],
        ["--channels-last"],
        ["--optimizer", "adamw"],
        ["--workers", "1"],
    ):
        assert first(*argv) == pytest.approx(plain, rel=1e-5), argv
    assert first("--amp", "bf16") == pytest.approx(plain, rel=1e-2) and first("--amp", "bf16") != pytest.approx(
        plain, rel=1e-6
    )
    for argv in (["--init", "he"], ["--init", "xavier"], ["--seed", "1"], ["--loss", "label-distance"]):
        assert first(*argv) != pytest.approx(plain, rel=1e-4), argv


@pytest.mark.long
def test_compiled_by_inductor(tmp_path):
    lenet(*TINY, "--steps", 3, "--out", tmp_path / "eager")
    lenet(*TINY, "--steps", 3, "--compile", "--out", tmp_path / "compiled")
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-5)


@pytest.mark.parametrize("script", [LENET, CIFAR])
@pytest.mark.parametrize("said, policy", [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_passively_unless_told_otherwise(script, said, policy):
    """OpenMP reads the environment when torch is imported: here, who imports it sees what is there then."""
    watch = (
        "import os, runpy, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': sys.exit(os.environ.get('OMP_WAIT_POLICY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "OMP_WAIT_POLICY"} | said
    run = subprocess.run([sys.executable, "-c", watch], env=environment, capture_output=True, text=True)
    assert run.stderr.strip() == policy


@pytest.mark.parametrize("script", [LENET, CIFAR])
def test_help_reads(script):
    """Two scripts of under 150 lines, whose --help says what each option is for in a terminal's width."""
    run = subprocess.run(
        [sys.executable, script, "--help"], env={**ENVIRONMENT, "COLUMNS": "120"}, capture_output=True, text=True
    )
    assert run.returncode == 0 and run.stderr == ""
    module = train_lenet if script == LENET else cifar_train
    assert all(line in run.stdout for line in module.__doc__.splitlines())
    assert all(name in run.stdout for name in options_of(PARSER) - ({"--model"} if script == LENET else set()))
    assert max(map(len, run.stdout.splitlines())) <= 120 and len(script.read_text().splitlines()) < 150


def test_the_course_page_names_every_option():
    page = (ROOT / "docs" / "course.md").read_text()
    table = page[page.index("| a lab asks for") :]
    assert set(re.findall(r"(?<!-)--[a-z][a-z-]*", table)) - {"--nproc-per-node"} == options_of(PARSER) - {"--help"}


def test_the_commands_that_are_shown_exist(tmp_path, monkeypatch):
    """Those of the page and of the scripts' own descriptions."""
    monkeypatch.setattr(options.arguments, "device", torch.device)  # also where there is no GPU
    monkeypatch.chdir(tmp_path)
    texts = [(ROOT / "docs" / "training.md").read_text(), train_lenet.__doc__, cifar_train.__doc__]
    commands = [
        line.partition("#")[0]
        for text in texts
        for line in text.splitlines()
        if re.search(r"(python|torchrun [-\w ]+) \w+\.py\b", line)
    ]
    assert len(commands) > 12 and any(
        line.startswith("torchrun --nproc-per-node 2 train_lenet.py") for line in commands
    )
    for command in commands:
        name, arguments = re.search(r"(\w+)\.py(.*)", command).groups()
        {"train_lenet": train_lenet, "cifar_train": cifar_train}[name].parse(arguments.split())


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--epochs", "0"], "argument --epochs: '0' is no whole number from 1 up"),
        (["--batch-size", "2.5"], "argument --batch-size: '2.5' is no whole number from 1 up"),
        (["--seed", "-1"], "argument --seed: '-1' is no whole number from 0 up"),
        (["--lr", "nan"], "argument --lr: 'nan' is no number above 0"),
        (["--lr", "fast"], "argument --lr: 'fast' is no number above 0"),
        (["--device", "tpu"], "argument --device: 'tpu' is no device"),
        (["--device", "cuda:1000"], "argument --device: 'cuda:1000': t"),
        (["--out", f"{LENET}/x"], "cannot be made a folder"),
        (["--data", "letters"], "argument --data: invalid choice: 'letters'"),
        (
            ["--algo", "magic"],
            "argument --algo: 'magic' is no algorithm for cpu: choose one of all, auto, reference, direct",
        ),
        (["--algo", "drect"], "'drect' is no algorithm for cpu: did you mean 'direct'? choose one of all, "),
        (["--algo", "tiled"], "argument --algo: 'tiled' is no algorithm for cpu"),
        (["--algo", "reference", "--simulate"], "argument --algo: 'reference' is no algorithm for cuda"),
        (["--algo", "direct", "--layers", "torch"], "argument --algo: torch's layers have no choice"),
        (["--simulate", "--compile"], "argument --simulate: it runs convlab's layers, uncompiled"),
        (["--graph"], "argument --graph: it captures what a GPU does, uncompiled: use --device cuda"),
        (["--compare", "--layers", "torch"], "argument --compare: both kinds of layers are trained"),
        (["--compare", "--resume"], "argument --resume: --compare, --simulate and --algo all keep no checkpoints"),
        (["--compile", "magic"], "argument --compile: 'magic' is no backend of torch.compile"),
    ],
)
def test_bad_arguments(tmp_path, capsys, argv, message):
    with pytest.raises(SystemExit) as exit:
        train_lenet.parse(["--out", str(tmp_path), *argv])
    assert exit.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "package, argv",
    [("matplotlib", ["--plots", "{}"]), ("matplotlib", ["--compare"]), ("tensorboard", ["--tensorboard"])],
)
def test_what_is_not_installed_is_named(tmp_path, capsys, monkeypatch, package, argv):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        train_lenet.parse(["--out", str(tmp_path), *(a.format(tmp_path) for a in argv)])
    assert f"pip install {package}" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(capsys):
    with pytest.raises(SystemExit):
        train_lenet.parse(["--device", "cuda"])
    assert "train with --device cpu" in capsys.readouterr().err


def test_a_pipe_gets_whole_lines(tmp_path):
    run = subprocess.run(
        [sys.executable, LENET, *TINY, "--steps", "3", "--out", tmp_path / "new" / "folder"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0 and run.stderr == "" and "\r" not in run.stdout
    assert re.fullmatch(r"test accuracy \d+\.\d\d %", run.stdout.splitlines()[-1])
    assert set(os.listdir(tmp_path / "new" / "folder")) == {".lock", "last.pt", "best.pt", "log.jsonl"}


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lenet(*TINY, "--epochs", 2, "--tensorboard", "--out", tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"train_loss", "test_loss", "train_accuracy", "test_accuracy", "images_per_second", "dead units/A1"} <= set(
        events.Tags()["scalars"]
    )
    assert [e.value for e in events.Scalars("test_loss")] == pytest.approx(
        [epoch["test_loss"] for epoch in log(tmp_path)[1]]
    )


# Pictures


def png_size(path):
    """(width, height) of a PNG that is not one colour."""
    plt = pytest.importorskip("matplotlib.pyplot")
    pixels = plt.imread(path)
    assert pixels.std() > 0.01
    return pixels.shape[1], pixels.shape[0]


@pytest.mark.parametrize("script, argv", [(lenet, []), (cifar, ["--data", "builtin", "--model", "resnet"])])
def test_plots(tmp_path, script, argv):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "pictures"
    script(*TINY, "--steps", 2, "--out", tmp_path, "--plots", folder, *argv)
    assert {path.name for path in folder.iterdir()} == {"training.png", "features.png", "confusion.png"}
    for path in folder.iterdir():
        width, height = png_size(path)
        assert 400 < width < 1200 and 250 < height < 1300


def test_pictures_show_every_layer(tmp_path):
    pytest.importorskip("matplotlib")
    from convlab.training import pictures
    from convlab.training.data import digits

    figure = pictures._features(train_lenet.lenet5(), digits()[1])
    shown = [axes.get_ylabel().split(",")[0] for axes in figure.axes]
    assert shown == ["image", "C1", "A1", "S2", "C3", "A3", "S4", "C5", "A5", "F6", "A6", "output"]


# torch beside convlab, and the ladder


@pytest.mark.parametrize("script, argv", [(lenet, []), (cifar, ["--data", "builtin"])])
def test_compare(tmp_path, capsys, script, argv):
    pytest.importorskip("matplotlib")
    import json

    script("--images", 200, "--batch-size", 16, "--steps", 20, "--compare", "--out", tmp_path, *argv)
    lines = [json.loads(line) for line in (tmp_path / "compare.jsonl").read_text().splitlines()]
    torchs, ours = ([loss for line in lines for loss in line[kind]["losses"]] for kind in ("torch", "convlab"))
    assert len(ours) == 20 and ours == pytest.approx(torchs, rel=1e-5, abs=0)
    png_size(tmp_path / "compare.png")
    out = capsys.readouterr().out
    assert re.search(r"convlab \d+\.\d\d times as fast as torch", out)
    assert not (tmp_path / "last.pt").exists()


CUDA_RUNGS = [a.name for a in convlab.algorithms() if "cuda" in a.backends]


@pytest.mark.parametrize(
    "rungs", [["tiled", "small_filter"], pytest.param(CUDA_RUNGS, marks=pytest.mark.long)], ids=len
)
def test_the_ladder(rungs, tmp_path, capsys):
    """The CUDA kernels train as torch does, to 1e-5; the table says what each moves."""
    args = train_lenet.parse(
        ["--algo", "all", "--simulate", "--steps", "2", "--batch-size", "1", "--seed", "7", "--out", str(tmp_path)]
    )
    rows = ladder.ladder(train_lenet.train, args, rungs, train_lenet.load(args))
    assert [row.algorithm for row in rows] == ["torch.nn", *rungs]
    assert all(row.loss == pytest.approx(rows[0].loss, rel=1e-5) for row in rows)
    assert any(row.loss != rows[0].loss for row in rows)  # other sums, other roundings: they were not all the same code
    traffic = {row.algorithm: row.traffic for row in rows[1:]}
    assert all(moved > 1e5 for moved in traffic.values()) and traffic["small_filter"] > 1.5 * traffic["tiled"]
    if "direct" in rungs:
        assert traffic["direct"] > 3 * traffic["tiled"]
    out = capsys.readouterr().out
    assert all(name in out for name in rungs)
    assert out.count("layer 'C5': its forward, dgrad and wgrad run 'auto', because algo 'small_filter'") == 1


def test_all_is_every_rung():
    args = train_lenet.parse(["--algo", "all", "--simulate"])
    assert options.algorithms_asked_for(args) == CUDA_RUNGS and len(CUDA_RUNGS) > 5


def test_a_rung_that_is_wrong_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "AGREE", 0.0)
    with pytest.raises(SystemExit, match=r"the loss of .*register_tiled.* is further than 0.0 from torch's"):
        lenet("--simulate", "--algo", "register_tiled", "--steps", 2, "--batch-size", 4, "--out", tmp_path)


def test_cpu_algorithms_are_a_ladder_too(tmp_path, capsys):
    lenet("--algo", "all", "--steps", 1, "--batch-size", 4, "--out", tmp_path)
    out = capsys.readouterr().out
    for algorithm in convlab.algorithms():
        assert (f"\n{algorithm.name} " in out) == ("cpu" in algorithm.backends)


def test_an_algorithm_gives_way_where_it_cannot(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lenet(*TINY, "--steps", 1, "--algo", "depthwise", "--out", tmp_path)
    assert any("layer 'C3': its forward, dgrad and wgrad run 'auto'" in str(w.message) for w in caught)
