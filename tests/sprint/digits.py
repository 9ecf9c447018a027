"""Reads the embedded MNIST: images [N, 28, 28] with pixels from 0 to 255, and labels."""
import gzip
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "crates/data/mnist"


def read(split):
    def values(name, header):
        packed = (FOLDER / f"{split}-{name}-ubyte.gz").read_bytes()
        return np.frombuffer(gzip.decompress(packed), np.uint8)[header:]

    return values("images-idx3", 16).reshape(-1, 28, 28), values("labels-idx1", 8).astype(np.int64)


def normalized(images):
    return (images.astype(np.float32) / 255 - 0.1307) / 0.3081
