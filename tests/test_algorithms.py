"""An algorithm is an argument: by name, by pass, checked when the forward is called."""

import pytest
import torch

import convlab
import convlab.functional as CF

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
    x, w = torch.randn(4, 8, 16, 16), torch.randn(8, 8, 5, 5)
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


@pytest.mark.cuda
def test_an_algorithm_of_the_cpu_on_cuda_tensors():
    x, w = torch.randn(1, 1, 3, 3, device="cuda"), torch.randn(1, 1, 3, 3, device="cuda")
    for algo in ("reference", {"wgrad": "reference"}):
        with pytest.raises(ValueError, match="reference.*direct"):
            CF.conv2d(x, w, algo=algo)


def test_convert_with_an_algorithm_that_gives_way():
    model = convlab.convert(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3)), algo="implicit_gemm")
    assert "algo='implicit_gemm'" in repr(model[0])
    x = torch.randn(2, 1, 8, 8)
    with pytest.warns(UserWarning, match="layer '0': its forward runs 'auto', because algo 'implicit_gemm' has no forward for cpu tensors"):
        expected = model(x)
    with convlab.simulate(check=False) as sim:  # there it can
        y = model(x)
        y.sum().backward()
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert {l.kernel.split("<")[0] for l in sim.launches} == {"gemm_kernel", "add_slices_kernel"}
    convlab.convert(model, algo={"wgrad": "direct"})
    with convlab.simulate(check=False) as sim:
        model(x).sum().backward()
    assert any(l.kernel.startswith("wgrad_kernel") for l in sim.launches)
    assert convlab.convert(model)[0].algo == "auto"
    with pytest.raises(ValueError, match="fastest"):
        convlab.convert(model, algo="fastest")
