"""What a script's training loop is given."""

import itertools
import sys

import torch

import convlab

from .batches import Batches
from .choices import LOSSES
from .prefetch import prefetched
from .processes import World
from .score import evaluate

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Captured(torch.nn.Module):
    """A network whose forward and backward, in training, on images of the first shape, are graphs of a GPU's work; on
    others it runs as it is."""

    def __init__(self, network):
        super().__init__()
        self.network, self.shape = network, None

    def forward(self, images):
        return self.network(images)

    def __call__(self, images):
        if self.shape is None and self.training and torch.is_grad_enabled():
            self.shape = images.shape
            before = [buffer.clone() for buffer in self.buffers()]  # the averages that warming up changes
            torch.cuda.make_graphed_callables(self, (images.clone(),))
            for buffer, value in zip(self.buffers(), before):
                buffer.copy_(value)
        if images.shape != self.shape:
            return self.network(images)
        return super().__call__(images)


class Run:
    """One training: its options, its images, whose layers it has, and how far it is.

    args: what options.parse returned; layers: convlab or torch.nn, fused: whether `fuse` takes the model; data: the Batches it trains on; done: the steps
    begun so far, of `steps` in all, `per_epoch` an epoch.
    """

    def __init__(self, args, sets, world=None, layers=None, algo=None):
        """sets: (training set, test set), ImageSets; layers (of options.LAYERS), algo: others than args has."""
        self.args, self.world = args, world or World(args.device)
        self.train_set, self.test_set = sets
        layers = layers or args.layers
        ours, self.fused = layers != "torch", layers == "convlab"
        self.layers, self.algo = (convlab, algo or args.algo) if ours else (torch.nn, None)
        self.per_epoch = -(-len(self.train_set.labels) // args.batch_size)
        self.steps = min(args.epochs * self.per_epoch, args.steps or sys.maxsize)
        self.done = 0

    def network(self, model):
        """`model`, as --layers, --algo, --device, --channels-last, --amp, --compile, --graph and torchrun want it: a
        function of images.

        `model` itself is what is saved, scored and drawn.
        """
        self.model, self.format = model, torch.channels_last if self.args.channels_last else torch.contiguous_format
        if self.fused:
            convlab.fuse(model, self.algo)
        elif self.algo:
            convlab.convert(model, self.algo)
        network = self.world.wrapped(model.to(self.world.device, memory_format=self.format))
        if self.args.compile:
            network = torch.compile(network, backend=self.args.compile)
        if self.args.graph:
            network = Captured(network)
        return lambda images: self._outputs(network, images)

    def _outputs(self, network, images):
        amp = AMP.get(self.args.amp)
        kept = not self.args.graph  # casts of weights, which a graph makes anew every time
        with torch.autocast(self.world.device.type, amp, enabled=amp is not None, cache_enabled=kept):
            return network(images).float()

    def batches(self, max_shift=0, flip=False):
        """The training images, epoch by epoch in a new order and newly varied: see Batches."""
        args, workers = self.args, self.args.workers  # which are processes, and what they share is the CPU's memory
        images = self.train_set if workers or args.prefetch else self.train_set.to(self.world.device)
        self.data = Batches(images, args.batch_size, args.seed, max_shift, flip, self.world, workers)
        return self.data

    def keep(self, **parts):
        """Names what changes in training beside the model, by its state_dict: it goes into checkpoints, and where this
        run continues another, comes from one."""
        self.parts = {"model": self.model, **parts}

    def epochs(self, batches):
        """For each epoch that is not finished, an iterable of its batches (images, labels, n), on the device.

        n counts the images of a batch in all processes: each has a part, and their gradients are added up.
        """
        while self.done < self.steps:
            yield self._rest_of_an_epoch(batches)

    def _rest_of_an_epoch(self, batches):
        epoch = batches.epoch(*divmod(self.done, self.per_epoch))
        for batch in self._on_the_device(itertools.islice(epoch, self.steps - self.done)):
            self.done += 1
            yield batch

    def _on_the_device(self, epoch):
        device = self.world.device
        if self.args.prefetch and device.type == "cuda":
            return prefetched(epoch, device, self.format)
        return (
            (images.to(device).contiguous(memory_format=self.format), labels.to(device), n)
            for images, labels, n in epoch
        )

    def score(self, loss_of=LOSSES["cross-entropy"]):
        """The Score of the model on the test images, of all processes together."""
        self.world.copy_from_the_first(self.model.buffers())  # batch norm's averages are each process's own
        part = self.test_set.part(slice(self.world.rank, None, self.world.size))
        return evaluate(self.model, part, loss_of, self._outputs, self.world.sum)
