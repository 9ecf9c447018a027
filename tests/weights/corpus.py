"""Imports networks of many kinds with `trainer import FILE` alone, and compares the accuracy on MNIST's test images with
that of the framework:

    pip install torch keras tensorflow-cpu
    cargo build -p trainer
    python tests/weights/corpus.py target/debug/trainer [NAME ...]

Each file must be right (within 0.02 points) or refused with a message; none may be silently wrong. Prints a row per file
and a table by format, and exits with 1 if a file is wrong.
"""

import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
from keras import layers as L

from mnist import images
from verdicts import Verdicts

TRAINER = pathlib.Path(sys.argv[1]).resolve()
TRAINED, EPOCHS, SHAPE = 20_000, 2, (28, 28, 1)


def unpadded(dense=128):
    """The network of Keras's own example."""
    return [L.Conv2D(32, 3, activation="relu"), L.MaxPooling2D(), L.Conv2D(64, 3, activation="relu"), L.MaxPooling2D(),
            L.Flatten(), L.Dropout(0.5), *[L.Dense(width, activation="relu") for width in [dense] * (dense > 0)]]


def head(*layers):
    return [*layers, L.Dense(10, activation="softmax")]


# Networks by name: their layers after the input, from pixels of 0 to 1 unless they rescale.
NETWORKS = {
    "example": lambda: head(*unpadded(0)),
    "unpadded": lambda: head(*unpadded()),
    "unpadded-64": lambda: head(*unpadded(64)),
    "padded": lambda: head(L.Conv2D(16, 3, padding="same", activation="relu"), L.MaxPooling2D(), L.Flatten()),
    "logits": lambda: [*unpadded(0), L.Dense(10)],
    "softmax-layer": lambda: [*unpadded(0), L.Dense(10), L.Softmax()],
    "activation-layers": lambda: [L.Conv2D(8, 3), L.Activation("relu"), L.MaxPooling2D(), L.Flatten(), L.Dense(32),
                                  L.ReLU(), L.Dense(10), L.Activation("softmax")],
    "kernels": lambda: head(L.Conv2D(8, 5, padding="same", activation="relu"), L.MaxPooling2D(),
                            L.Conv2D(16, 3, activation="relu"), L.Flatten(), L.Dense(32, activation="relu")),
    "unpooled": lambda: head(L.Conv2D(8, 3, activation="relu"), L.Conv2D(8, 3, activation="relu"),
                             L.MaxPooling2D(), L.Dropout(0.25), L.Flatten(), L.Dense(64, activation="relu"),
                             L.Dropout(0.5)),
    "four": lambda: head(*[layer for _ in range(2) for layer in (
        L.Conv2D(8, 3, padding="same", activation="relu"), L.Conv2D(8, 3, padding="same", activation="relu"),
        L.MaxPooling2D())], L.Flatten()),
    "average": lambda: head(L.Conv2D(8, 3, activation="relu"), L.AveragePooling2D(2), L.Flatten()),
    "average-before-relu": lambda: head(L.Conv2D(8, 3), L.AveragePooling2D(2), L.Activation("relu"), L.Flatten()),
    "lenet": lambda: head(L.Conv2D(6, 5, padding="same", activation="tanh"), L.AveragePooling2D(2),
                          L.Conv2D(16, 5, activation="tanh"), L.AveragePooling2D(2), L.Flatten(),
                          L.Dense(120, activation="tanh"), L.Dense(84, activation="tanh")),
    "pool-3": lambda: head(L.Conv2D(8, 3, activation="relu"), L.MaxPooling2D(3, strides=2), L.Flatten()),
    "strided": lambda: head(L.Conv2D(8, 5, strides=2, activation="relu"), L.Conv2D(16, 3, activation="relu"),
                            L.Flatten()),
    "strided-same": lambda: head(L.Conv2D(8, 3, strides=2, padding="same", activation="relu"), L.Flatten()),
    "zero-padding": lambda: head(L.ZeroPadding2D(2), L.Conv2D(8, 5, activation="relu"), L.MaxPooling2D(), L.Flatten()),
    "padded-pool": lambda: head(L.Conv2D(8, 3, activation="relu"), L.ZeroPadding2D(1), L.MaxPooling2D(3, strides=2),
                                L.Flatten()),
    "padded-average": lambda: head(L.Conv2D(8, 3, activation="tanh"), L.ZeroPadding2D(((0, 1), (0, 1))),
                                   L.AveragePooling2D(3), L.Flatten()),
    "padded-tanh": lambda: head(L.Conv2D(8, 3, activation="tanh"), L.ZeroPadding2D(1), L.MaxPooling2D(2), L.Flatten()),
    "global": lambda: head(L.Conv2D(16, 3, activation="relu"), L.MaxPooling2D(), L.Conv2D(32, 3, activation="relu"),
                           L.GlobalAveragePooling2D()),
    "global-max": lambda: head(L.Conv2D(32, 5, activation="relu"), L.GlobalMaxPooling2D()),
    "norm": lambda: head(L.Conv2D(8, 3, use_bias=False), L.BatchNormalization(momentum=0.9), L.ReLU(), L.MaxPooling2D(),
                         L.Flatten(), L.Dense(32), L.BatchNormalization(momentum=0.9), L.ReLU()),
    "norm-after-relu": lambda: head(L.Conv2D(8, 3, activation="relu"), L.BatchNormalization(momentum=0.9), L.MaxPooling2D(),
                                    L.Flatten()),
    "norm-after-pool": lambda: head(L.Conv2D(8, 3), L.MaxPooling2D(), L.BatchNormalization(momentum=0.9), L.ReLU(), L.Flatten()),
    "gelu": lambda: head(L.Conv2D(8, 3, activation="gelu"), L.MaxPooling2D(), L.Flatten(),
                         L.Dense(32, activation="gelu")),
    "silu-before-pool": lambda: head(L.Conv2D(8, 3), L.MaxPooling2D(), L.Activation("silu"), L.Flatten()),
    "softmax-middle": lambda: head(L.Conv2D(8, 3, activation="softmax"), L.MaxPooling2D(), L.Flatten()),
    "sigmoid": lambda: head(L.Conv2D(8, 3, activation="sigmoid"), L.MaxPooling2D(), L.Flatten()),
    "mixed": lambda: head(L.Flatten(), L.Dense(32, activation="relu"), L.Dense(32, activation="tanh")),
    "dense": lambda: head(L.Flatten(), L.Dense(128, activation="relu"), L.Dropout(0.2)),
    "linear": lambda: head(L.Flatten()),
    "rescaled": lambda: head(L.Rescaling(1 / 255), *unpadded(0)),
    "rescaled-half": lambda: head(L.Rescaling(1 / 127.5, offset=-1), *unpadded(0)),
    "flipped": lambda: head(L.RandomTranslation(0.1, 0.1), *unpadded(0)),
    "separable": lambda: head(L.SeparableConv2D(8, 3, activation="relu"), L.Flatten()),
    "wide-kernel": lambda: head(L.Conv2D(8, (3, 5), activation="relu"), L.Flatten()),
    "lambda": lambda: head(L.Conv2D(8, 3, activation="relu"), L.Lambda(lambda x: x * 2), L.Flatten()),
}


def functional(layers):
    inputs = x = keras.Input(SHAPE)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def branched():
    """A sum of two convolutions, which no network of this project can be."""
    inputs = keras.Input(SHAPE)
    left, right = (L.Conv2D(8, 3, activation="relu")(inputs) for _ in range(2))
    return keras.Model(inputs, L.Dense(10, activation="softmax")(L.Flatten()(L.Add()([left, right]))))


def residual():
    """Two residual groups, the second with a projection, as in the ResNets of Keras."""
    def normalized(x, filters, strides=1):
        x = L.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        return L.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input(SHAPE)
    x = L.ReLU()(normalized(inputs, 8))
    for filters, strides in (8, 1), (16, 2):
        y = normalized(L.ReLU()(normalized(x, filters, strides)), filters)
        if strides > 1:
            x = L.BatchNormalization(momentum=0.9)(L.Conv2D(filters, 1, strides=strides)(x))
        x = L.Activation("relu")(L.Add()([x, y]))
    return keras.Model(inputs, L.Dense(10, activation="softmax")(L.GlobalAveragePooling2D()(x)))


GRAPHS = {"branched": branched, "residual": residual}


def trained(model, name):
    scale = 1 if name.startswith("rescaled") else 255
    logits = model.layers[-1].__class__.__name__ == "Dense" and model.layers[-1].activation.__name__ == "linear"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    model.compile("adam", loss, metrics=["accuracy"])
    pixels, labels = (part[:TRAINED] for part in images("train"))
    model.fit(pixels.reshape(-1, *SHAPE).astype("float32") / scale, labels, batch_size=32, epochs=EPOCHS, verbose=0)
    pixels, labels = images("t10k")
    accuracy = np.mean(model.predict(pixels.reshape(-1, *SHAPE).astype("float32") / scale, 500, verbose=0).argmax(1)
                       == labels)
    return float(accuracy)


def main():
    names = sys.argv[2:] or [*NETWORKS, *GRAPHS]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        verdicts = Verdicts(TRAINER, folder)
        for index, name in enumerate(names):
            keras.utils.set_random_seed(1)
            # Every other network is functional.
            if name in GRAPHS:
                model = GRAPHS[name]()
            else:
                layers = NETWORKS[name]()
                model = functional(layers) if index % 2 else keras.Sequential([keras.Input(SHAPE), *layers])
            expected = trained(model, name)
            for extension in (".keras", ".h5"):
                path = folder / (name + extension)
                model.save(path)
                verdicts.add(path, extension, expected)
        is_wrong = verdicts.finish()
    sys.exit(int(is_wrong))


main()
