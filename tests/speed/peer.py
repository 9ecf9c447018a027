"""Parts that the scripts of all peers share: arguments, images, timing, and the requests of compare.py.

A peer's script reads a request per line from standard input, `train 64` or `inference 1`, and answers with images per
second. The number is the batch size.

    echo "train 64" | python tests/speed/peer_torch.py vgg bfloat16
"""
import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "sprint"))
from digits import normalized, read

CLASSES = 10
# Presets of the trainer, and the parameters that it trains.
NETWORKS = {"convnet": 421_642, "vgg": 1_186_378, "resnet9": 6_570_880}
# Of a request, at least.
MIN_CALLS = 3


def arguments(variants):
    parser = argparse.ArgumentParser(description="Measures images per second; reads requests from standard input.")
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("variant", choices=variants)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of a measurement")
    parser.add_argument("--onnx", help="file of the network, for ONNX Runtime")
    return parser.parse_args()


def check_parameters(network, count):
    """Checks that a network has as many parameters as the trainer's."""
    if count != NETWORKS[network]:
        raise SystemExit(f"{network} has {count} parameters, expected {NETWORKS[network]}")


def images(network, count):
    """Returns normalized images [count, channels, height, width] and labels: digits, or noise in color."""
    if network == "convnet":
        pixels, labels = read("train")
        return normalized(pixels[:count])[:, None], labels[:count]
    random = np.random.default_rng(0)
    return random.standard_normal((count, 3, 32, 32), np.float32), np.arange(count) % CLASSES


def answer(prepare, seconds):
    """Answers the requests. `prepare(kind, batch)` returns a function that trains or classifies, and the number of
    images of one call."""
    # Libraries may print on standard output.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    prepared = {}
    for request in map(str.strip, sys.stdin):
        if request not in prepared:
            kind, batch = request.split()
            prepared[request] = prepare(kind, int(batch))
            calls_per_second(prepared[request][0], seconds)
        call, images_per_call = prepared[request]
        # Another process may have used the caches.
        call()
        print(images_per_call * calls_per_second(call, seconds), file=out, flush=True)


def calls_per_second(call, seconds):
    start, calls = time.perf_counter(), 0
    while calls < MIN_CALLS or time.perf_counter() - start < seconds:
        call()
        calls += 1
    return calls / (time.perf_counter() - start)
