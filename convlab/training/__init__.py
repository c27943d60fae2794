"""What the training scripts are made of, one subject a module; the scripts themselves stay short enough to read.

data         the images, as tensors: scikit-learn's digits, MNIST
batches      the order of the images and their random shifts, the same for every choice of layers and device
loop         a pass over the batches, step by step, and the score on the test images
checkpoint   a file that is either the old one or the new one, never half of it
progress     a bar on a terminal, plain lines everywhere else
arguments    types for argparse whose errors say what was expected
"""
