"""Real models, converted: torch's outputs, gradients, state_dict and losses, in float64."""

import copy

import pytest
import torch

import convlab

models = pytest.importorskip("torchvision.models")

NAMES = {
    "resnet18": {},
    "mobilenet_v2": {},
    "densenet121": {},
    "squeezenet1_1": {},
    "shufflenet_v2_x1_0": {},
    "googlenet": dict(aux_logits=False, init_weights=False),
}
shows = pytest.mark.works_with(
    "torchvision's resnet18, mobilenet_v2, densenet121, squeezenet1_1, shufflenet and googlenet: outputs, gradients and losses to 1e-9 in float64"
)
KINDS = (torch.nn.Conv2d, torch.nn.MaxPool2d, torch.nn.AvgPool2d, torch.nn.ReLU)
PARTS = (convlab.Conv2d, convlab.MaxPool2d, convlab.AvgPool2d, convlab.ReLU)


def pair(name):
    original = getattr(models, name)(weights=None, num_classes=10, **NAMES[name]).double()
    return original, convlab.convert(copy.deepcopy(original))


def results(model, x):
    torch.manual_seed(0)  # dropout
    y = model(x)
    return y.detach(), torch.autograd.grad(y.square().sum(), list(model.parameters()))


@shows
@pytest.mark.parametrize("name", NAMES)
def test_outputs_gradients_and_state(name):
    original, ours = pair(name)
    assert (
        sum(isinstance(m, PARTS) for m in ours.modules()) == sum(isinstance(m, KINDS) for m in original.modules()) > 20
    )
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    (expected, expected_gradients), (y, gradients) = results(original, x), results(ours, x)
    largest = max(
        g.abs().max().item() for g in expected_gradients
    )  # some are sums of large terms that should be 0, before a batch norm
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    for parameter, g, expected in zip(dict(original.named_parameters()), gradients, expected_gradients):
        torch.testing.assert_close(g, expected, rtol=1e-9, atol=1e-9 * largest, msg=lambda text: f"{parameter}: {text}")
    assert list(ours.state_dict()) == list(original.state_dict())
    original.load_state_dict(ours.state_dict())
    assert [type(m) for m in convlab.restore(ours).modules()] == [type(m) for m in original.modules()]


@shows
def test_ten_steps_of_resnet18():
    original, ours = pair("resnet18")
    # Of 32 x 32 the last batch norms would see four values each, and multiply rounding: torch's own layouts differ by 1e-8
    x, labels = torch.randn(4, 3, 64, 64, dtype=torch.float64), torch.randint(10, (4,))
    losses = []
    for model in (original, ours):
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        losses.append([])
        for _ in range(10):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-9, abs=0)
    assert losses[1][-1] < losses[1][0] / 2, "it did not learn"
