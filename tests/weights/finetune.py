"""Trains a network on the digits 0 to 6 of MNIST, fine-tunes it on nine images of each of 7, 8 and 9, and compares the test
errors with those of training from scratch:

    pip install numpy pillow
    cargo build -p trainer
    python tests/weights/finetune.py target/debug/trainer [DRAWS]

Prints errors and seconds of each draw, and exits with 1 unless fine-tuning makes at most half the errors in all of them
together.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from mnist import images

TRAINER = pathlib.Path(sys.argv[1]).resolve()
DRAWS = int(sys.argv[2]) if len(sys.argv) > 2 else 10
OLD, NEW, SHOTS, OLD_IMAGES = range(7), range(7, 10), 9, 4_000
SETTINGS = ["--preset", "best", "--epochs", "60", "--batch-size", "9"]


def write(folder, pixels, labels, digits, chosen):
    for digit in digits:
        target = folder / str(digit)
        target.mkdir(parents=True)
        for index in chosen(np.flatnonzero(labels == digit)):
            Image.fromarray(pixels[index, 0]).save(target / f"{index}.png")


def train(folder, name, data, *flags):
    start = time.time()
    command = [TRAINER, "-q", "train", "--data", data, "--out", folder / "runs", "--run-name", name, *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    evaluation = json.loads((folder / "runs" / name / "evaluation.json").read_text())
    return round((1 - evaluation["accuracy"]) * evaluation["examples"]), time.time() - start


def main():
    training, test = images("train"), images("t10k")
    errors = np.zeros(2, int)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write(folder / "old/train", *training, OLD, lambda indices: indices[:OLD_IMAGES])
        write(folder / "old/test", *test, OLD, lambda indices: indices)
        count, _ = train(folder, "old", folder / "old", "--preset", "best")
        print(f"digits 0 to 6: {count} errors")
        for draw in range(DRAWS):
            random = np.random.default_rng(draw)
            data = folder / f"new-{draw}"
            write(data / "train", *training, NEW, lambda indices: random.choice(indices, SHOTS, replace=False))
            write(data / "test", *test, NEW, lambda indices: indices)
            scratch = train(folder, f"scratch-{draw}", data, *SETTINGS)
            tuned = train(folder, f"tuned-{draw}", data, *SETTINGS, "--init-from", "old", "--learning-rate", "2e-3")
            errors += [scratch[0], tuned[0]]
            print(f"draw {draw}: from scratch {scratch[0]} errors, {scratch[1]:.1f} s; "
                  f"fine-tuned {tuned[0]} errors, {tuned[1]:.1f} s", flush=True)
    print(f"all draws: {errors[0]} and {errors[1]} errors, {errors[1] / errors[0]:.2f} times as many")
    sys.exit(int(2 * errors[1] > errors[0]))


main()
