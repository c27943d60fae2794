"""An algorithm is an argument: by name, by pass, checked when the forward is called."""

import dataclasses
import random
import re

import ladder
import pytest
import torch

import convlab
import convlab.functional as CF
from convlab import cpu
from convlab.testing import AWKWARD, Conv, random_conv

PASSES = {"forward", "dgrad", "wgrad"}


def test_the_table():
    rows = convlab.algorithms()
    assert len({a.name for a in rows}) == len(rows)
    for a in rows:
        assert a.passes and a.passes <= PASSES
        assert a.backends and a.backends <= {"cpu", "cuda"}
        assert a.technique and a.name.isidentifier()
    assert {"reference", "direct"} <= {a.name for a in rows}


def test_supports_says_what_runs_and_why_not():
    x, w = torch.randn(2, 4, 9, 8), torch.randn(6, 2, 3, 3)
    problem = convlab.Conv2dProblem.of(x, w, stride=(2, 1), padding=1, groups=2)
    assert (problem.x, problem.w, problem.y) == ((2, 4, 9, 8), (6, 2, 3, 3), (2, 6, 5, 8))
    assert (problem.dtype, problem.backend, problem.channels_last) == (torch.float32, "cpu", False)
    for a in convlab.algorithms():
        for pass_ in PASSES:
            ok, reason = a.supports(problem, pass_)
            assert ok == (not reason)
    reference = convlab.algorithms()[0]
    on_cuda = convlab.Conv2dProblem(**{**vars(problem), "backend": "cuda"})
    assert reference.supports(on_cuda, "dgrad") == (False, "has no dgrad for cuda tensors")
    assert not reference.supports(convlab.Conv2dProblem(**{**vars(problem), "dtype": torch.int8}), "forward")[0]
    with pytest.raises(ValueError, match="pass_='backward'"):
        reference.supports(problem, "backward")


def test_problem_of_unbatched_and_same_padding():
    problem = convlab.Conv2dProblem.of(torch.randn(3, 9, 8), torch.randn(6, 3, 4, 3), padding="same")
    assert problem.x == (1, 3, 9, 8) and problem.y == (1, 6, 9, 8) and problem.padding == (1, 1, 2, 1)
    with pytest.raises(RuntimeError, match="channels"):
        convlab.Conv2dProblem.of(torch.randn(2, 3, 9, 8), torch.randn(6, 4, 3, 3))


def test_each_algorithm_runs_its_own_code():
    """reference and direct add in different orders: float32 results differ in the last bits, and each is its own."""
    x, w = torch.randn(4, 4, 16, 16), torch.randn(8, 4, 5, 5)  # so few channels that auto takes direct
    dy = torch.randn(4, 8, 12, 12)

    def passes(algo):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = CF.conv2d(a, b, algo=algo)
        return [y.detach(), *torch.autograd.grad(y, (a, b), dy)]

    reference, direct = passes("reference"), passes("direct")
    assert not torch.equal(reference[2], direct[2])  # sequential sums against sums in lanes
    for algo, expected in [
        ({"wgrad": "reference"}, [direct[0], direct[1], reference[2]]),
        ({"forward": "reference", "dgrad": "direct", "wgrad": "direct"}, [reference[0], direct[1], direct[2]]),
        ({"wgrad": "auto"}, direct),
        ("auto", direct),
    ]:
        assert all(torch.equal(a, b) for a, b in zip(passes(algo), expected)), algo


@pytest.mark.parametrize(
    "algo,error,words",
    [
        ("fastest", ValueError, ["'fastest'", "'direct'", "'reference'", "'auto'"]),
        ({"forward": "fastest"}, ValueError, ["'fastest'"]),
        ({"backward": "direct"}, ValueError, ["'backward'", "'dgrad'"]),
        (3, TypeError, ["int"]),
        (None, TypeError, ["NoneType"]),
    ],
)
def test_bad_names(algo, error, words):
    with pytest.raises(error) as caught:
        CF.conv2d(torch.randn(1, 1, 3, 3), torch.randn(1, 1, 3, 3), algo=algo)
    assert all(word in str(caught.value) for word in words)
    for layer in (
        convlab.Conv1d,
        convlab.Conv2d,
        convlab.ConvBlock2d,
        convlab.ConvTranspose1d,
        convlab.ConvTranspose2d,
    ):
        with pytest.raises(error) as from_layer:
            layer(1, 1, 3, algo=algo)
        assert str(from_layer.value) == str(caught.value)


def test_a_name_that_is_nearly_right():
    for layer, algo in ((convlab.Conv2d, "drect"), (convlab.Conv1d, {"forward": "drect"})):
        with pytest.raises(
            ValueError, match=r"^algo='drect' is unknown: did you mean 'direct'\? choose 'auto' or one of"
        ):
            layer(1, 1, 3, algo=algo)


@pytest.mark.parametrize("as_", [lambda name: name, lambda name: {"forward": name}])
def test_an_algorithm_of_the_other_backend_names_simulate(as_):
    x, w = torch.randn(1, 1, 3, 3), torch.randn(1, 1, 3, 3)
    with pytest.raises(ValueError, match=r"^algo='tiled' .*\(inside convlab.simulate\(\) CPU tensors take it\); "):
        CF.conv2d(x, w, algo=as_("tiled"))
    with (
        convlab.simulate(),
        pytest.raises(
            ValueError, match=r"^algo='reference' .*\(inside convlab.simulate\(\) CPU tensors run the CUDA kernels\); "
        ),
    ):
        CF.conv2d(x, w, algo=as_("reference"))


@pytest.mark.cuda
def test_an_algorithm_of_the_cpu_on_cuda_tensors():
    x, w = torch.randn(1, 1, 3, 3, device="cuda"), torch.randn(1, 1, 3, 3, device="cuda")
    for algo in ("reference", {"wgrad": "reference"}):
        with pytest.raises(ValueError, match=r"reference.*direct"):
            CF.conv2d(x, w, algo=algo)


def test_convert_with_an_algorithm_that_gives_way():
    model = convlab.convert(
        torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3)), algo="implicit_gemm"
    )
    assert "algo='implicit_gemm'" in repr(model[0])
    x = torch.randn(2, 1, 8, 8)
    with pytest.warns(
        UserWarning,
        match="layer '0': its forward, dgrad and wgrad run 'auto', because algo 'implicit_gemm' has none",
    ) as said:
        expected = model(x)
    assert said[0].filename == __file__  # the line above, not one of convlab's or torch's
    with convlab.simulate(check=False) as sim:  # there it can
        y = model(x)
        y.sum().backward()
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert {launch.kernel.split("<")[0] for launch in sim.launches} == {"gemm_kernel"}
    convlab.convert(model, algo={"forward": "implicit_gemm"})
    with pytest.warns(UserWarning, match="layer '1': its forward runs 'auto'"):
        model(x)
    convlab.convert(model, algo={"wgrad": "direct"})
    with convlab.simulate(check=False) as sim:
        model(x).sum().backward()
    assert any(launch.kernel.startswith("wgrad_kernel") for launch in sim.launches)
    assert convlab.convert(model)[0].algo == "auto"
    with pytest.raises(ValueError, match="fastest"):
        convlab.convert(model, algo="fastest")


def test_one_warning_for_each_reason():
    """Of the passes that it concerns, and never again."""
    x, strided = torch.randn(1, 2, 8, 8), torch.nn.Conv2d(2, 2, 3, stride=2)
    model = convlab.convert(torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3), strided), algo="small_filter")
    with pytest.warns(UserWarning) as said:
        for _ in range(2):
            model(x).sum().backward()
    assert [str(warning.message) for warning in said] == [
        f"convlab: layer '{layer}': its forward, dgrad and wgrad run 'auto', because algo 'small_filter' has none of them "
        "for cpu tensors"
        for layer in (0, 1)
    ]
    convlab.convert(model, algo={"forward": "winograd_2x2", "dgrad": "winograd_2x2", "wgrad": "small_filter"})
    with pytest.warns(UserWarning) as said:
        model(x)
    assert [str(warning.message) for warning in said] == [
        "convlab: layer '0': its wgrad runs 'auto', because algo 'small_filter' has no wgrad for cpu tensors",
        "convlab: layer '1': its forward and dgrad run 'auto', because algo 'winograd_2x2' takes stride 1, and this has stride 2 x 2",
        "convlab: layer '1': its wgrad runs 'auto', because algo 'small_filter' has no wgrad for cpu tensors",
    ]


# ---- the CUDA rungs and their chooser
# ---------------------------------------------------------------------------------


def files_of_auto(conv, dtype, pass_):
    """The files of the kernels that "auto" launches for a pass, under simulate()."""
    x, w, b = conv.tensors(dtype)
    leaves = {"forward": [], "dgrad": [x], "wgrad": [w, b]}[pass_]
    for t in leaves:
        t.requires_grad_()
    with convlab.simulate(check=False) as sim:
        y = CF.conv2d(x, w, b, *conv.arguments)
        before = len(sim.launches) if leaves else 0
        if leaves:
            torch.autograd.grad(y, leaves, torch.ones_like(y))
    return {launch.source.split("/")[-1].split(":")[0] for launch in sim.launches[before:]}


@pytest.mark.parametrize("dtype", ladder.DTYPES, ids=str)
@pytest.mark.parametrize("conv", [AWKWARD[i] for i in (0, 5, 7, 8, 13, 14, 15)], ids=str)
def test_auto_takes_what_is_supported(conv, dtype):
    """Some rung that supports the pass has the kernels that ran."""
    for pass_ in PASSES:
        able = [a for a in ladder.RUNGS if a.supports(ladder.problem_of(conv, dtype), pass_)[0]]
        files = files_of_auto(conv, dtype, pass_)
        assert files and any(files <= ladder.sources_of(a) | ladder.SHARED_BY_ALL for a in able), (pass_, files)


def test_there_is_always_a_rung():
    rng = random.Random(5)
    for _ in range(300):
        problem = ladder.problem_of(random_conv(rng), rng.choice(ladder.DTYPES))
        for pass_ in PASSES:
            assert any(a.supports(problem, pass_)[0] for a in ladder.RUNGS)


@pytest.mark.parametrize("rung", ladder.RUNGS, ids=lambda a: a.name)
def test_a_plan_goes_with_support(rung):
    """What is supported has a launch that the hardware takes; what is not has a reason, which asking for the plan
    repeats."""
    rng = random.Random(6)
    huge = [Conv(1, 4, 40000, 40000, 4, 3, 3), Conv(1, 50000, 7, 7, 50000, 3, 3), Conv(70000, 1, 3, 3, 1, 3, 3)]
    huge += [Conv(1, 1, 3, 3, 3 << 20, 3, 3)]
    huge += [Conv(1, 70000, 3, 3, 70000, 3, 3, groups=70000), Conv(1, 1, 600, 600, 1, 3, 3, stride=(300, 300))]
    for conv in [random_conv(rng) for _ in range(300)] + huge + [c for c in AWKWARD if c.N]:
        for dtype in ladder.DTYPES:
            problem = meta_problem(conv, dtype)
            for pass_ in PASSES:
                ok, reason = rung.supports(problem, pass_)
                assert ok == (not reason)
                if not ok:
                    with pytest.raises(ValueError, match=re.escape(reason)):
                        rung.plan(problem, pass_)
                    continue
                plan = rung.plan(problem, pass_)
                assert 1 <= plan["grid"][0] < 2**31 and all(1 <= size <= 65535 for size in plan["grid"][1:]), (
                    conv,
                    pass_,
                    plan,
                )
                assert 1 <= plan["threads"] <= 1024 and plan["slices"] >= 1 and plan["workspace"] >= 0


def meta_problem(conv, dtype):
    """A problem without the memory its tensors would take."""
    w = (conv.K, conv.C // conv.groups, conv.R, conv.S)
    y = (conv.N, conv.K, *conv.outputs)
    return convlab.Conv2dProblem(
        conv[:4], w, y, conv.stride, conv.padding * 2, conv.dilation, conv.groups, dtype, False, "cuda"
    )


@pytest.mark.parametrize("algo", [a for a in convlab.algorithms() if "cpu" in a.backends], ids=lambda a: a.name)
def test_a_plan_of_the_cpu_goes_with_support(algo):
    rng = random.Random(7)
    for conv in [random_conv(rng) for _ in range(60)] + [c for c in AWKWARD if c.N]:
        for channels_last in (False, True):
            problem = meta_problem(conv, rng.choice(ladder.DTYPES))
            problem = dataclasses.replace(problem, backend="cpu", channels_last=channels_last)
            for pass_ in algo.passes:
                ok, reason = algo.supports(problem, pass_)
                if not ok:
                    with pytest.raises(ValueError, match=re.escape(reason)):
                        algo.plan(problem, pass_)
                    continue
                plan = algo.plan(problem, pass_)
                assert plan["kernels"] == cpu.kernels() and plan["slices"] >= 1 and plan["pieces"] >= plan["slices"]
                assert (algo.name == "reference") == (plan["workspace"] + plan["scratch"] == 0)


@pytest.mark.parametrize("rung", ladder.RUNGS, ids=lambda a: a.name)
def test_what_a_rung_refuses_is_said_by_the_forward_call(rung):
    """With the reason and names that would work; also where only the backward would need the rung."""
    refused = [
        (conv, dtype, pass_)
        for conv in (AWKWARD[0], AWKWARD[5])
        for dtype in ladder.DTYPES
        for pass_ in rung.passes
        if not rung.supports(ladder.problem_of(conv, dtype), pass_)[0]
    ]
    for conv, dtype, pass_ in refused:
        x, w, b = conv.tensors(dtype)
        reason = rung.supports(ladder.problem_of(conv, dtype), pass_)[1]
        with convlab.simulate(check=False), pytest.raises(ValueError, match=re.escape(reason)) as caught:
            CF.conv2d(x.requires_grad_(), w, b, *conv.arguments, algo={pass_: rung.name})
        working = [a.name for a in ladder.RUNGS if a.supports(ladder.problem_of(conv, dtype), pass_)[0]]
        assert working and all(repr(name) in str(caught.value) for name in working)
    if not refused:
        assert set(ladder.dtypes_of(rung)) == set(ladder.DTYPES)
