"""MNIST and CIFAR-10 in their own formats, with a handful of images."""

import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
from torchvision.datasets import CIFAR10

# ---- MNIST
# ------------------------------------------------------------------------------------------------------------


def idx(magic, *sizes, payload):
    return struct.pack(f">{1 + len(sizes)}i", magic, *sizes) + payload


def write_mnist(folder):
    """Five training and three test images into `folder`/MNIST/raw; image i of a part has ink i + 1 in its corner, label
    i."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 5), ("t10k", 3)):
        pixels = b"".join(bytes([i + 1]) + bytes(28 * 28 - 1) for i in range(n))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(2051, n, 28, 28, payload=pixels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(2049, n, payload=bytes(range(n))))


# ---- CIFAR-10
# ---------------------------------------------------------------------------------------------------------

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batch_file(seed, n):
    rng = np.random.default_rng(seed)
    labels = [int(v) for v in rng.integers(10, size=n)]
    return pickle.dumps({"data": rng.integers(256, size=(n, 3072), dtype=np.uint8), "labels": labels})


def cifar10():
    """({name: bytes} of its files and of the archive, what torchvision's CIFAR10 must have for attributes to take them
    for those that were published)."""
    files = {f"data_batch_{i}": batch_file(i, 4) for i in range(1, 6)} | {"test_batch": batch_file(6, 3)}
    files["batches.meta"] = pickle.dumps({"label_names": NAMES})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    attributes = {
        "train_list": [[f"data_batch_{i}", md5[f"data_batch_{i}"]] for i in range(1, 6)],
        "test_list": [["test_batch", md5["test_batch"]]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]},
        "tgz_md5": hashlib.md5(packed.getvalue()).hexdigest(),
        "url": "http://127.0.0.1:9/cifar-10-python.tar.gz",  # nobody listens there
    }
    return files | {CIFAR10.filename: packed.getvalue()}, attributes
