"""Compares fine-tuning with training from scratch on few images, by the test errors:

- digits: a network trained on the digits 0 to 6 of MNIST, fine-tuned on nine images of each of 7, 8 and 9,
- fashion: the embedded color network `pretrained-cifar`, fine-tuned on ten images of each class of Fashion-MNIST.

    pip install numpy pillow
    cargo build -p trainer
    python tests/weights/finetune.py target/debug/trainer [digits|fashion] [DRAWS]

Fashion-MNIST is Debian's package dataset-fashion-mnist. Prints errors and seconds of each draw, and exits with 1 unless
fine-tuning makes at most half the errors on digits and fewer errors on fashion, in all draws together.
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
CASE = sys.argv[2] if len(sys.argv) > 2 else "digits"
DRAWS = int(sys.argv[3]) if len(sys.argv) > 3 else 10
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
# The settings of `best` for Fashion-MNIST, see docs/accuracy.md.
BEST_FASHION = ["--preset", "best", "--rotation", "0", "--shear", "0", "--scale", "0", "--elastic", "0", "--flip"]
FEW = ["--batch-size", "10", "--validation", "0"]


def write(folder, pixels, labels, classes, chosen):
    for label in classes:
        target = folder / str(label)
        target.mkdir(parents=True)
        for index in chosen(np.flatnonzero(labels == label)):
            Image.fromarray(pixels[index, 0]).save(target / f"{index}.png")


def train(folder, name, data, *flags):
    start = time.time()
    command = [TRAINER, "-q", "train", "--data", data, "--out", folder / "runs", "--run-name", name, *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    evaluation = json.loads((folder / "runs" / name / "evaluation.json").read_text())
    return round((1 - evaluation["accuracy"]) * evaluation["examples"]), time.time() - start


class Digits:
    """The digits 7, 8 and 9, and a network that knows the others."""

    classes, shots, tested, most = range(7, 10), 9, None, 0.5
    scratch = ["--preset", "best", "--epochs", "60", "--batch-size", "9"]
    tuned = [*scratch, "--init-from", "old", "--learning-rate", "2e-3"]

    def __init__(self, folder):
        self.training, self.test = images("train"), images("t10k")
        old = range(7)
        write(folder / "old/train", *self.training, old, lambda indices: indices[:4_000])
        write(folder / "old/test", *self.test, old, lambda indices: indices)
        count, _ = train(folder, "old", folder / "old", "--preset", "best")
        print(f"digits 0 to 6: {count} errors")


class Fashion:
    """Clothes, and a network for color pictures of animals and vehicles."""

    classes, shots, tested, most = range(10), 10, 300, 1.0
    scratch = [*BEST_FASHION, *FEW, "--epochs", "60"]
    tuned = [*FEW, "--epochs", "40", "--init-from", "pretrained-cifar", "--channels", "3"]

    def __init__(self, folder):
        self.training, self.test = images("train", FASHION), images("t10k", FASHION)


def main():
    errors = np.zeros(2, int)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        case = {"digits": Digits, "fashion": Fashion}[CASE](folder)
        for draw in range(DRAWS):
            random = np.random.default_rng(draw)
            data = folder / f"new-{draw}"
            write(data / "train", *case.training, case.classes,
                  lambda indices: random.choice(indices, case.shots, replace=False))
            write(data / "test", *case.test, case.classes, lambda indices: indices[:case.tested])
            scratch = train(folder, f"scratch-{draw}", data, *case.scratch)
            tuned = train(folder, f"tuned-{draw}", data, *case.tuned)
            errors += [scratch[0], tuned[0]]
            print(f"draw {draw}: from scratch {scratch[0]} errors, {scratch[1]:.1f} s; "
                  f"fine-tuned {tuned[0]} errors, {tuned[1]:.1f} s", flush=True)
    print(f"all draws: {errors[0]} and {errors[1]} errors, {errors[1] / errors[0]:.2f} times as many")
    sys.exit(int(errors[1] > case.most * errors[0]))


main()
