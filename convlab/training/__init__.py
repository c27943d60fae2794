"""What the training scripts are made of, one subject a module; the scripts themselves stay short enough to read.

session      what a script does: prepare, then one of the next three
run          a training that can be stopped at any moment and continued
compare      torch's layers and convlab's side by side
ladder       the first steps through one algorithm after another

options      the command line that the scripts share; arguments: its types, whose errors say what was expected
data         the images, as tensors: scikit-learn's digits, MNIST, CIFAR-10; shapes: those drawn from a seed
batches      the order of the images and their random shifts, the same for every choice of layers, device and processes
loop         a pass over the batches, step by step, and the score on the test images; losses, initialise: their parts
processes    one process, or those of torchrun
checkpoint   what is saved, and how it is checked when it is loaded; files: the old one or the new one, never half of it
log          the run as lines of JSON, and for TensorBoard
pictures     curves, filters, feature maps, errors
progress     a bar on a terminal, plain lines everywhere else
errors       what ends a script with one line
"""
