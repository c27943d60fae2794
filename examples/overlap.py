"""Copies beside kernels: images of the CPU's memory go through a block of convlab's on a GPU, part by part. In one stream
every part is copied, computed and copied back before the next begins; in several, one part is copied while another is
computed.

python examples/overlap.py
"""

import time

import torch

import convlab

PARTS, STREAMS, ROUNDS = 16, 3, 10
GPU = torch.cuda.is_available()
IMAGES = 16384 if GPU else 64

torch.manual_seed(0)
block = convlab.ConvBlock2d(1, 6, 5, activation="relu", pool=2).requires_grad_(False)
images = torch.randn(IMAGES, 1, 32, 32)
expected = block(images)


def in_parts(block, images, results, streams):
    """results = block(images), in PARTS parts, that take turns among the streams.

    images [N, 1, 32, 32], results [N, 6, 14, 14]: in the CPU's memory, pinned.
    """
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())  # which made the filters
    for i, (part, result) in enumerate(zip(images.chunk(PARTS), results.chunk(PARTS))):
        with torch.cuda.stream(streams[i % len(streams)]):  # convlab's kernels go to the current stream, as torch's
            result.copy_(block(part.to("cuda", non_blocking=True)), non_blocking=True)
    for stream in streams:
        stream.synchronize()  # the results are there only now


if not GPU:
    parts = torch.cat([block(part) for part in images.chunk(PARTS)])
    assert torch.equal(parts, expected)  # no algorithm depends on how many images there are
    print(f"{PARTS} parts give the bits of the whole; there is no GPU here for them to overlap on")
else:
    block, images, results = block.cuda(), images.pin_memory(), torch.empty_like(expected).pin_memory()
    for count in (1, STREAMS):
        streams = [torch.cuda.Stream() for _ in range(count)]
        times = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            in_parts(block, images, results, streams)
            times.append(time.perf_counter() - begin)
        torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-4)
        print(f"{PARTS} parts in {count} stream(s): {1e3 * min(times):.2f} ms")
