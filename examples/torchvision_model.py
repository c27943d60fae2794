"""A torchvision model through convlab's kernels: the same state_dict, the same results, gradients and all.

python examples/torchvision_model.py
"""

import torch
import torchvision

import convlab

torch.manual_seed(0)
# float64: with two images, a rounding error of float32 may turn a sign before a ReLU
model = torchvision.models.resnet18(num_classes=10).double()
x, labels = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.tensor([3, 7])


def step():
    model.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), labels)
    loss.backward()
    return loss.item(), model.conv1.weight.grad.clone()


loss, gradient = step()
convlab.convert(model)  # swaps the layers in place: parameters, hooks and references stay what they were
print(model.layer1[0].conv1)
its_loss, its_gradient = step()

print(f"loss {loss:.6f} through torch, {its_loss:.6f} through convlab")
print(
    f"gradient of conv1.weight: the largest difference is {(gradient - its_gradient).abs().max() / gradient.abs().max():.1e} of the largest element"
)
assert abs(loss - its_loss) < 1e-9 and (gradient - its_gradient).abs().max() < 1e-9 * gradient.abs().max()
