"""The weights a network starts from."""

from torch import nn

SLOPE = 0.01  # of torch's LeakyReLU, which every network here uses, for negative inputs


def he(weight):
    """He et al. (2015): a variance of 2 / fan_in, which keeps the size of what goes forward through (leaky) ReLUs."""
    nn.init.kaiming_normal_(weight, a=SLOPE, nonlinearity="leaky_relu")


def xavier(weight):
    """Glorot and Bengio (2010): a variance of 2 / (fan_in + fan_out), between what forward and what backward would
    have."""
    nn.init.xavier_normal_(weight)


INITIALISERS = {"default": None, "he": he, "xavier": xavier}


def initialise(model, how):
    """Draws the filters and matrices of `model` anew, in the order of its layers, and sets their biases to zero;
    "default" leaves all."""
    if draw := INITIALISERS[how]:
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                draw(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
