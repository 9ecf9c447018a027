"""Imports PyTorch networks of many kinds with `trainer import FILE` alone, and compares the accuracy on MNIST's test images
with that of PyTorch:

    pip install torch safetensors
    cargo build -p trainer
    python tests/weights/corpus_torch.py target/debug/trainer [NAME ...]

Each file must be right (within 0.02 points) or refused with a message; none may be silently wrong. Prints a row per file
and a table by kind of file, and exits with 1 if a file is wrong.
"""

import pathlib
import sys
import tempfile
import warnings

import safetensors.torch
import torch
from torch import nn

from mnist import images, normalized, train
from verdicts import Verdicts

TRAINER = pathlib.Path(sys.argv[1]).resolve()
TRAINED, EPOCHS = 60_000, 2


def block(inputs, outputs, padding=1):
    return [nn.Conv2d(inputs, outputs, 3, padding=padding), nn.ReLU(), nn.MaxPool2d(2)]


def head(inputs, *widths, activation=nn.ReLU):
    """Flattening and dense layers with these outputs."""
    layers = [nn.Flatten()]
    for width in widths:
        layers += [nn.Linear(inputs, width), activation()]
        inputs = width
    return [*layers, nn.Linear(inputs, 10)]


class Scale(nn.Module):
    def forward(self, x):
        return 2 * x


# The layers of sequential modules by name. Pixels are from 0 to 1, or normalized if the name says so.
NETWORKS = {
    "padded": lambda: [*block(1, 8), *block(8, 16), *head(16 * 49, 64)],
    "padded-normalized": lambda: [*block(1, 8), *block(8, 16), *head(16 * 49, 64)],
    "unpadded": lambda: [*block(1, 8, 0), *block(8, 16, 0), *head(16 * 25)],
    "same": lambda: [nn.Conv2d(1, 8, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2), *head(8 * 196)],
    "same-even-normalized": lambda: [nn.Conv2d(1, 8, 4, padding="same"), nn.ReLU(), nn.MaxPool2d(2), *head(8 * 196)],
    "nested": lambda: [nn.Sequential(*block(1, 8)), nn.Sequential(nn.Sequential(*head(8 * 196, 32)))],
    "average": lambda: [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AvgPool2d(2), *head(8 * 169)],
    "average-padded": lambda: [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AvgPool2d(3, 2, padding=1), *head(8 * 169)],
    "average-uncounted": lambda: [nn.Conv2d(1, 8, 3), nn.ReLU(),
                                  nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), *head(8 * 169)],
    "lenet-normalized": lambda: [nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(),
                                 nn.AvgPool2d(2), *head(16 * 25, 120, 84, activation=nn.Tanh)],
    "ceil": lambda: [nn.Conv2d(1, 8, 4), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), *head(8 * 169)],
    "ceil-3": lambda: [nn.Conv2d(1, 8, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(), *head(8 * 169)],
    "pool-padded": lambda: [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), *head(8 * 169)],
    "strided": lambda: [nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
                        *head(16 * 36)],
    "dilated": lambda: [nn.Conv2d(1, 8, 3, dilation=2), nn.ReLU(), nn.MaxPool2d(2), *head(8 * 144)],
    "rectangle": lambda: [nn.Conv2d(1, 8, (3, 5), padding=(1, 2)), nn.ReLU(), nn.MaxPool2d(2), *head(8 * 196)],
    "zero-padding": lambda: [nn.ZeroPad2d((1, 2, 3, 0)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
                             *head(8 * 14 * 14)],
    "norm": lambda: [nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), *head(8 * 169)],
    "norm-epsilon": lambda: [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, eps=0.1), nn.ReLU(), nn.MaxPool2d(2), *head(8 * 169)],
    "norm-after-relu": lambda: [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), *head(8 * 169)],
    "norm-after-pool": lambda: [nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.ReLU(), *head(8 * 169)],
    "norm-1d": lambda: [*block(1, 8, 0), nn.Flatten(), nn.Linear(8 * 169, 32), nn.BatchNorm1d(32), nn.ReLU(),
                        nn.Linear(32, 10)],
    "norm-plain-normalized": lambda: [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(), *head(8 * 676)],
    "tanh": lambda: [nn.Conv2d(1, 8, 3), nn.Tanh(), nn.MaxPool2d(2), *head(8 * 169, 32, activation=nn.Tanh)],
    "gelu": lambda: [nn.Conv2d(1, 8, 3), nn.GELU(), nn.MaxPool2d(2), *head(8 * 169, 32, activation=nn.GELU)],
    "gelu-tanh": lambda: [nn.Conv2d(1, 8, 3), nn.GELU("tanh"), nn.MaxPool2d(2), *head(8 * 169)],
    "silu": lambda: [nn.Conv2d(1, 8, 3), nn.SiLU(), nn.MaxPool2d(2), *head(8 * 169, 32, activation=nn.SiLU)],
    "silu-after-pool": lambda: [nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.SiLU(), *head(8 * 169)],
    "mixed": lambda: [nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)],
    "dropout-normalized": lambda: [*block(1, 16), nn.Dropout2d(0.25), nn.Flatten(), nn.Linear(16 * 196, 64), nn.ReLU(),
                                   nn.Dropout(0.5), nn.Linear(64, 10)],
    "log-softmax": lambda: [*block(1, 8), *head(8 * 196), nn.LogSoftmax(dim=1)],
    "softmax": lambda: [*block(1, 8), *head(8 * 196), nn.Softmax(dim=-1)],
    "linear": lambda: head(784),
    "dense-normalized": lambda: head(784, 128),
    "dense-3": lambda: head(784, 128, 64, 32),
    "global": lambda: [*block(1, 16), nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                       *head(64)],
    "global-max": lambda: [nn.Conv2d(1, 32, 7), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveMaxPool2d((1, 1)), *head(32, 64)],
    "adaptive": lambda: [*block(1, 8), nn.AdaptiveAvgPool2d((7, 7)), *head(8 * 49)],
    "identity": lambda: [*block(1, 8), nn.Identity(), *head(8 * 196)],
    "sigmoid": lambda: [nn.Conv2d(1, 8, 3), nn.Sigmoid(), nn.MaxPool2d(2), *head(8 * 169)],
    "grouped": lambda: [*block(1, 8), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), *head(8 * 144)],
    "reflect": lambda: [nn.Conv2d(1, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.MaxPool2d(2), *head(8 * 196)],
    "layer-norm": lambda: [nn.Flatten(), nn.Linear(784, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 10)],
    "own-class": lambda: [Scale(), *block(1, 8), *head(8 * 196)],
}


def checkpoint(network, optimizer, path):
    torch.save({"epoch": EPOCHS, "model_state_dict": network.state_dict(), "optimizer_state_dict": optimizer.state_dict(),
                "loss": 0.1}, path)


def script(network, _, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), path)


# Kinds of files: the extension, and how they are written. The last five have no description of the network.
FILES = {
    "module": (".pt", lambda network, _, path: torch.save(network, path)),
    "legacy module": (".pth", lambda network, _, path: torch.save(network, path, _use_new_zipfile_serialization=False)),
    "state_dict": (".pt", lambda network, _, path: torch.save(network.state_dict(), path)),
    "legacy state_dict": (".pth", lambda network, _, path: torch.save(network.state_dict(), path,
                                                                      _use_new_zipfile_serialization=False)),
    "safetensors": (".safetensors", lambda network, _, path: safetensors.torch.save_file(network.state_dict(), path)),
    "checkpoint": (".pt", checkpoint),
    "TorchScript": (".pt", script),
}


def scaled(pixels, name):
    return normalized(pixels, *((0.1307, 0.3081) if name.endswith("normalized") else (0, 1)))


def trained(network, name):
    """Trains a network, and returns its optimizer and its accuracy on the test images."""
    pixels, labels = (part[:TRAINED] for part in images("train"))
    pixels = scaled(pixels, name)
    # Global pooling learns slowly.
    for _ in range(2 * EPOCHS if name.startswith("global") else EPOCHS):
        optimizer = train(network, pixels, labels)
    pixels, labels = images("t10k")
    with torch.no_grad():
        classes = torch.cat([network(batch).argmax(1) for batch in torch.from_numpy(scaled(pixels, name)).split(500)])
    return optimizer, float((classes.numpy() == labels).mean())


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        verdicts = Verdicts(TRAINER, folder)
        for name in sys.argv[2:] or NETWORKS:
            torch.manual_seed(1)
            network = nn.Sequential(*NETWORKS[name]())
            optimizer, expected = trained(network, name)
            for kind, (extension, write) in FILES.items():
                path = folder / f"{name}-{kind.replace(' ', '-')}{extension}"
                write(network, optimizer, path)
                verdicts.add(path, kind, expected)
        is_wrong = verdicts.finish()
    sys.exit(int(is_wrong))


main()
