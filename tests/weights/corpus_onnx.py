"""Exports networks of PyTorch as ONNX, imports them with `trainer import FILE` alone, and compares the accuracy on MNIST's
test images with that of PyTorch:

    pip install torch onnx onnxscript
    cargo build -p trainer
    python tests/weights/corpus_onnx.py target/debug/trainer [NAME ...]

Each file must be right (within 0.02 points) or refused with a message; none may be silently wrong. Prints a row per file
and a table by exporter, and exits with 1 if a file is wrong.
"""

import logging
import pathlib
import sys
import tempfile
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mnist import ResNet9, images, logits, normalized, train
from verdicts import Verdicts

TRAINER = pathlib.Path(sys.argv[1]).resolve()
TRAINED, EPOCHS = 10_000, 3

torch.set_num_threads(1)
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Residual(nn.Module):
    """`activation(layers(x) + shortcut(x))`"""

    def __init__(self, layers, shortcut=nn.Identity(), activation=nn.Identity()):
        super().__init__()
        self.layers, self.shortcut, self.activation = layers, shortcut, activation

    def forward(self, x):
        return self.activation(self.layers(x) + self.shortcut(x))


class View(nn.Module):
    """Flattens as `x.view(x.size(0), -1)`, or with the size of all dimensions."""

    def __init__(self, is_whole=False):
        super().__init__()
        self.is_whole = is_whole

    def forward(self, x):
        return x.view(x.size(0), x.size(1) * x.size(2) * x.size(3)) if self.is_whole else x.view(x.size(0), -1)


def seq(*layers):
    return nn.Sequential(*layers)


def conv(inputs, outputs, kernel=3, **options):
    return nn.Conv2d(inputs, outputs, kernel, **options)


def head(features, *layers):
    """Flattens, and ends with a dense layer after some hidden ones."""
    return seq(nn.Flatten(), *layers, nn.Linear(features, 10))


def small(activation=nn.ReLU, pool=None, **options):
    """A convolution, activation, pool, and a dense layer."""
    return seq(conv(1, 8, padding=1, **options), activation(), pool or nn.MaxPool2d(2), head(8 * 14 * 14))


def normalization():
    """Normalizes pixels from 0 to 255."""
    return Function(lambda x: (x / 255 - 0.1307) / 0.3081)


def features():
    """The normalization of pixels from 0 to 255, and two convolutions with batch normalization."""
    return seq(normalization(), conv(1, 16), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), conv(16, 32),
               nn.BatchNorm2d(32), nn.ReLU())


def residual(inputs, outputs, stride=1, norm=nn.BatchNorm2d, activation=nn.ReLU):
    layers = seq(conv(inputs, outputs, stride=stride, padding=1, bias=False), norm(outputs), activation(),
                 conv(outputs, outputs, padding=1, bias=False), norm(outputs))
    is_projected = inputs != outputs or stride != 1
    shortcut = seq(conv(inputs, outputs, 1, stride=stride, bias=False), norm(outputs)) if is_projected else nn.Identity()
    return Residual(layers, shortcut, activation())


class Last(nn.Module):
    """A network on images with the channels last, flattened so."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = conv(1, 8, padding=1), nn.Linear(8 * 14 * 14, 10)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.conv(x.permute(0, 3, 1, 2))), 2)
        return self.fc(x.permute(0, 2, 3, 1).flatten(1))


# Networks by name: a function of the network, and how pixels are normalized: a mean and a standard deviation, or None for
# pixels from 0 to 255. Then the options of the export.
UNIT, HALF, MEAN_STD = (0.0, 1.0), (0.5, 0.5), (0.1307, 0.3081)
NETWORKS = {
    "padded": (lambda: small(), UNIT, dict(opset_version=17)),
    "padded-7": (lambda: small(), UNIT, dict(opset_version=7)),
    "padded-9": (lambda: small(), HALF, dict(opset_version=9)),
    "padded-11": (lambda: small(), MEAN_STD, dict(opset_version=11)),
    "padded-13": (lambda: small(), MEAN_STD, dict(opset_version=13)),
    "padded-20": (lambda: small(), MEAN_STD, dict(opset_version=20)),
    "padded-dynamo": (lambda: small(), MEAN_STD, dict(dynamo=True)),
    "padded-dynamo-20": (lambda: small(), UNIT, dict(dynamo=True, opset_version=20)),
    "one-image": (lambda: small(), UNIT, dict(opset_version=12, dynamic_axes=None)),
    "unfolded": (lambda: seq(conv(1, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), head(8 * 169)), UNIT,
                 dict(opset_version=13, do_constant_folding=False)),
    "training-mode": (lambda: seq(conv(1, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), head(8 * 169)), UNIT,
                      dict(opset_version=15, training=torch.onnx.TrainingMode.PRESERVE)),
    "unpadded": (lambda: seq(conv(1, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                             nn.Linear(400, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)), MEAN_STD,
                 dict(opset_version=14)),
    "view": (lambda: seq(conv(1, 8), nn.ReLU(), nn.MaxPool2d(2), View(), nn.Linear(8 * 169, 10)), UNIT,
             dict(opset_version=9)),
    "view-whole": (lambda: seq(conv(1, 8), nn.ReLU(), nn.MaxPool2d(2), View(True), nn.Linear(8 * 169, 10)), UNIT,
                   dict(opset_version=11)),
    "average": (lambda: small(pool=nn.AvgPool2d(2)), UNIT, dict(opset_version=17)),
    "average-padded": (lambda: seq(conv(1, 8), nn.ReLU(), nn.AvgPool2d(3, 2, 1), head(8 * 169)), UNIT,
                       dict(opset_version=17)),
    "average-uncounted": (lambda: seq(conv(1, 8), nn.ReLU(), nn.AvgPool2d(3, 2, 1, count_include_pad=False),
                                      head(8 * 169)), UNIT, dict(opset_version=17)),
    "average-before-relu": (lambda: seq(conv(1, 8, padding=1), nn.AvgPool2d(2), nn.ReLU(), head(8 * 196)), UNIT,
                            dict(opset_version=11)),
    "max-padded": (lambda: seq(conv(1, 8), nn.ReLU(), nn.MaxPool2d(3, 2, 1), head(8 * 169)), UNIT,
                   dict(opset_version=10)),
    "ceil": (lambda: seq(conv(1, 8), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), head(8 * 169)), UNIT,
             dict(opset_version=17)),
    "ceil-without-effect": (lambda: small(pool=nn.MaxPool2d(2, ceil_mode=True)), UNIT, dict(opset_version=17)),
    "strided": (lambda: seq(conv(1, 8, 5, stride=2, padding=2), nn.ReLU(), conv(8, 16, stride=2, padding=1), nn.ReLU(),
                            head(16 * 49)), UNIT, dict(opset_version=17)),
    "dilated": (lambda: seq(conv(1, 8, dilation=2, padding=2), nn.ReLU(), nn.MaxPool2d(2), head(8 * 196)), UNIT,
                dict(opset_version=17)),
    "grouped": (lambda: seq(conv(1, 8), nn.ReLU(), conv(8, 8, groups=8), nn.ReLU(), nn.MaxPool2d(2), head(8 * 144)),
                UNIT, dict(opset_version=17)),
    "wide-kernel": (lambda: seq(conv(1, 8, (3, 5), padding=(1, 2)), nn.ReLU(), nn.MaxPool2d(2), head(8 * 196)), UNIT,
                    dict(opset_version=17)),
    "one-by-one": (lambda: seq(conv(1, 8), nn.ReLU(), conv(8, 4, 1), nn.ReLU(), nn.MaxPool2d(2), head(4 * 169)), UNIT,
                   dict(opset_version=15)),
    "zero-padding": (lambda: seq(nn.ZeroPad2d((1, 2, 1, 2)), conv(1, 8, 4), nn.ReLU(), nn.MaxPool2d(2), head(8 * 196)),
                     UNIT, dict(opset_version=11)),
    "zero-padding-dynamo": (lambda: seq(nn.ZeroPad2d(1), conv(1, 8), nn.ReLU(), nn.MaxPool2d(2), head(8 * 196)),
                            UNIT, dict(dynamo=True)),
    "reflected": (lambda: small(padding_mode="reflect"), UNIT, dict(opset_version=17)),
    "same": (lambda: seq(conv(1, 8, padding="same"), nn.ReLU(), nn.MaxPool2d(2), head(8 * 196)), UNIT,
             dict(opset_version=17)),
    "lenet": (lambda: seq(conv(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), conv(6, 16, 5), nn.Tanh(),
                          nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(),
                          nn.Linear(84, 10)), HALF, dict(opset_version=12)),
    "norm": (lambda: seq(conv(1, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(8 * 169, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)), MEAN_STD,
             dict(opset_version=17)),
    "norm-after-relu": (lambda: seq(conv(1, 8), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), head(8 * 169)), MEAN_STD,
                        dict(opset_version=17)),
    "norm-after-pool": (lambda: seq(conv(1, 8), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(8), conv(8, 8, padding=1),
                                    nn.ReLU(), head(8 * 169)), MEAN_STD, dict(opset_version=17)),
    "norm-after-flatten": (lambda: seq(conv(1, 8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.BatchNorm1d(8 * 169),
                                       nn.Linear(8 * 169, 10)), MEAN_STD, dict(opset_version=17)),
    "norm-first": (lambda: seq(nn.BatchNorm2d(1), *small()), UNIT, dict(opset_version=17)),
    "norm-last": (lambda: seq(*small(), nn.BatchNorm1d(10)), UNIT, dict(opset_version=17)),
    "gelu": (lambda: small(nn.GELU), UNIT, dict(opset_version=17)),
    "gelu-dynamo": (lambda: small(nn.GELU), UNIT, dict(dynamo=True)),
    "gelu-20": (lambda: small(nn.GELU), UNIT, dict(opset_version=20)),
    "gelu-dense": (lambda: seq(nn.Flatten(), nn.Linear(784, 64), nn.GELU(), nn.Linear(64, 10)), UNIT,
                   dict(opset_version=9)),
    "gelu-tanh": (lambda: small(lambda: nn.GELU("tanh")), UNIT, dict(opset_version=17)),
    "silu": (lambda: small(nn.SiLU), UNIT, dict(opset_version=17)),
    "silu-dynamo": (lambda: seq(conv(1, 8), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2), head(8 * 169)), UNIT,
                    dict(dynamo=True)),
    "tanh": (lambda: small(nn.Tanh), UNIT, dict(opset_version=13)),
    "sigmoid": (lambda: small(nn.Sigmoid), UNIT, dict(opset_version=13)),
    "leaky": (lambda: small(lambda: nn.LeakyReLU(0.1)), UNIT, dict(opset_version=13)),
    "relu6": (lambda: small(nn.ReLU6), UNIT, dict(opset_version=13)),
    "mixed": (lambda: seq(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)),
              UNIT, dict(opset_version=13)),
    "global": (lambda: seq(*features(), nn.AdaptiveAvgPool2d(1), head(32)), None, dict(opset_version=17)),
    "global-mean": (lambda: seq(*features(), Function(lambda x: x.mean((2, 3))), nn.Linear(32, 10)), None,
                    dict(opset_version=17)),
    "global-mean-dynamo": (lambda: seq(*features(), Function(lambda x: x.mean((2, 3))), nn.Linear(32, 10)), None,
                           dict(dynamo=True)),
    "global-max": (lambda: seq(*features(), Function(lambda x: x.amax((2, 3))), nn.Linear(32, 10)), None,
                   dict(opset_version=18)),
    "global-logits": (lambda: seq(*features(), conv(32, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), None, dict(opset_version=17)),
    "softmax": (lambda: seq(*small(), nn.Softmax(1)), UNIT, dict(opset_version=17)),
    "softmax-9": (lambda: seq(*small(), nn.Softmax(-1)), UNIT, dict(opset_version=9)),
    "log-softmax": (lambda: seq(*small(), nn.LogSoftmax(1)), MEAN_STD, dict(opset_version=11)),
    "normalized-half": (lambda: seq(Function(lambda x: (x - 0.5) / 0.5), *small()), UNIT, dict(opset_version=17)),
    "normalized": (lambda: seq(normalization(), *small()), None,
                   dict(opset_version=17)),
    "normalized-bytes": (lambda: seq(Function(lambda x: (x.float() / 255 - 0.1307) / 0.3081), *small()), "bytes",
                         dict(opset_version=17)),
    "bytes": (lambda: seq(Function(lambda x: x.float()), nn.BatchNorm2d(1), *small()), "bytes", dict(opset_version=17)),
    "channels-last": (Last, UNIT, dict(opset_version=17)),
    "channels-last-dynamo": (Last, UNIT, dict(dynamo=True)),
    "no-bias": (lambda: seq(conv(1, 8, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                            nn.Linear(8 * 169, 10, bias=False)), UNIT, dict(opset_version=17)),
    "scaled-logits": (lambda: seq(*small(), Function(lambda x: x * 0.125)), UNIT, dict(opset_version=17)),
    "scaled-channels": (lambda: seq(conv(1, 8), Scale(8), nn.ReLU(), nn.MaxPool2d(2), head(8 * 169)), UNIT,
                        dict(opset_version=17)),
    "dense": (lambda: seq(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)), UNIT,
              dict(opset_version=17)),
    "linear": (lambda: head(784), UNIT, dict(opset_version=8)),
    "resnet9": (ResNet9, MEAN_STD, dict(opset_version=17)),
    "residual": (lambda: seq(conv(1, 8, padding=1), nn.ReLU(), nn.MaxPool2d(2), residual(8, 8), residual(8, 16, 2),
                             nn.AdaptiveAvgPool2d(1), head(16)), MEAN_STD, dict(opset_version=17)),
    "residual-dynamo": (lambda: seq(conv(1, 8, padding=1), nn.ReLU(), nn.MaxPool2d(2), residual(8, 16, 2),
                                    residual(16, 16), nn.MaxPool2d(2), head(16 * 9)), MEAN_STD, dict(dynamo=True)),
    "residual-silu": (lambda: seq(conv(1, 8, padding=1), nn.SiLU(), nn.MaxPool2d(2), residual(8, 8, activation=nn.SiLU),
                                  nn.AvgPool2d(2), nn.BatchNorm2d(8), head(8 * 49)), MEAN_STD, dict(opset_version=16)),
    "residual-first": (lambda: seq(nn.MaxPool2d(2), conv(1, 8, padding=1),
                                   Residual(seq(nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8, padding=1))),
                                   Residual(seq(nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8, padding=1))),
                                   nn.BatchNorm2d(8), nn.ReLU(), head(8 * 196)), MEAN_STD, dict(opset_version=17)),
    "residual-nested": (lambda: seq(conv(1, 8, padding=1), nn.MaxPool2d(2),
                                    Residual(seq(residual(8, 8), conv(8, 8, padding=1))), head(8 * 196)), UNIT,
                        dict(opset_version=17)),
    "branches": (lambda: seq(Residual(conv(1, 8), conv(1, 8)), nn.ReLU(), nn.MaxPool2d(2), head(8 * 169)), UNIT,
                 dict(opset_version=17)),
    "half": (lambda: seq(normalization(), *small()), None, dict(opset_version=17), "half"),
    "external": (lambda: small(), UNIT, dict(dynamo=True, external_data=True)),
}


class Scale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, channels):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x):
        return x * self.factor


def export(network, example, path, options):
    dynamo = options.get("dynamo", False)
    axes = {"dynamic_axes": {"images": {0: "N"}, "logits": {0: "N"}}}
    if dynamo:
        axes = {"dynamic_shapes": ({0: torch.export.Dim("N")},), "external_data": False, "verbose": False}
    options = {"dynamo": False, **axes, **options}
    names = {"input_names": ["images"], "output_names": ["logits"]}
    torch.onnx.export(network, (torch.from_numpy(example),), path, **names, **options)


def in_half(path):
    """Stores the weights in half precision, behind casts."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + ".half"))
            casts.append(helper.make_node("Cast", [name + ".half"], [name], to=onnx.TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    onnx.save(model, path)


def inputs(split, normalization, is_last):
    pixels, labels = images(split)
    pixels = pixels.transpose(0, 2, 3, 1).copy() if is_last else pixels.copy()
    if normalization == "bytes":
        return pixels, labels
    mean, std = normalization or (0.0, 1 / 255)
    return normalized(pixels, mean, std), labels


def main():
    names = sys.argv[2:] or [*NETWORKS]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        verdicts = Verdicts(TRAINER, folder)
        for name in names:
            torch.manual_seed(1)
            create, normalization, options, *extra = NETWORKS[name]
            network = create()
            pixels, labels = inputs("train", normalization, isinstance(network, Last))
            for _ in range(EPOCHS):
                train(network, pixels[:TRAINED], labels[:TRAINED], 32)
            path = folder / f"{name}.onnx"
            if options.get("training") is not None:
                network.train()
            export(network, pixels[:2 if options.get("dynamic_axes", 1) else 1], path, options)
            network.eval()
            if extra:
                in_half(path)
            pixels, labels = inputs("t10k", normalization, isinstance(network, Last))
            expected = float(np.mean(logits(network, pixels).argmax(1) == labels))
            verdicts.add(path, "torch.export" if options.get("dynamo") else "TorchScript", expected)
        is_wrong = verdicts.finish()
    sys.exit(int(is_wrong))


main()
