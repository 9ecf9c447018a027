"""Imports networks of Keras 2 and Keras 1 with `trainer import FILE` alone, and compares the accuracy on MNIST's test
images with that of Keras 2:

    pip install tf_keras h5py
    cargo build -p trainer
    python tests/weights/corpus_old_keras.py target/debug/trainer [NAME ...]

Keras 2 writes its files itself. Keras 1 does not run any more: its files are written here, with its names of layers,
settings and weights. Each file must be right (within 0.02 points) or refused with a message; none may be silently wrong.
"""

import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import h5py
import numpy as np
import tf_keras as keras
from tf_keras import layers as L

from mnist import images
from verdicts import Verdicts

TRAINER = pathlib.Path(sys.argv[1]).resolve()
TRAINED, EPOCHS, SHAPE = 20_000, 2, (28, 28, 1)


def head(*layers):
    return [*layers, L.Dense(10, activation="softmax")]


# Layers after the input, from pixels of 0 to 1.
NETWORKS = {
    "example": lambda: head(L.Conv2D(32, 3, activation="relu"), L.MaxPooling2D(), L.Conv2D(64, 3, activation="relu"),
                            L.MaxPooling2D(), L.Flatten(), L.Dropout(0.5)),
    "padded": lambda: head(L.Conv2D(8, 5, padding="same", activation="relu"), L.MaxPooling2D(), L.Flatten(),
                           L.Dense(32, activation="relu")),
    "unpooled": lambda: head(L.Conv2D(8, 3, activation="relu"), L.Conv2D(8, 3, strides=2), L.Activation("relu"),
                             L.Dropout(0.25), L.Flatten()),
    "average": lambda: head(L.Conv2D(8, 3, activation="tanh"), L.AveragePooling2D(), L.Flatten(),
                            L.Dense(32, activation="tanh")),
    "norm": lambda: head(L.Conv2D(8, 3, use_bias=False), L.BatchNormalization(momentum=0.9), L.Activation("relu"),
                         L.MaxPooling2D(), L.Flatten()),
    "dense": lambda: head(L.Flatten(), L.Dense(64, activation="relu")),
    "padded-by-layer": lambda: head(L.ZeroPadding2D(1), L.Conv2D(8, 3, activation="relu"), L.MaxPooling2D(3), L.Flatten()),
}


def keras_1(model, path):
    """Writes a sequential model as Keras 1.2 does on TensorFlow."""
    classes = {"Conv2D": "Convolution2D"}
    variables = {"kernel": "W", "bias": "b", "gamma": "gamma", "beta": "beta", "moving_mean": "running_mean",
                 "moving_variance": "running_std"}

    def settings(layer):
        config = layer.get_config()
        old = {"name": layer.name, "trainable": True}
        if isinstance(layer, L.Conv2D):
            old |= {"nb_filter": config["filters"], "nb_row": config["kernel_size"][0], "nb_col": config["kernel_size"][1],
                    "subsample": config["strides"], "border_mode": config["padding"], "dim_ordering": "tf",
                    "activation": config["activation"], "bias": config["use_bias"]}
        elif isinstance(layer, (L.MaxPooling2D, L.AveragePooling2D)):
            old |= {"pool_size": config["pool_size"], "strides": config["strides"], "border_mode": config["padding"],
                    "dim_ordering": "tf"}
        elif isinstance(layer, L.Dense):
            old |= {"output_dim": config["units"], "activation": config["activation"], "bias": config["use_bias"]}
        elif isinstance(layer, L.Dropout):
            old |= {"p": config["rate"]}
        elif isinstance(layer, L.ZeroPadding2D):
            old |= {"padding": [1, 1], "dim_ordering": "tf"}
        elif isinstance(layer, L.BatchNormalization):
            old |= {"epsilon": config["epsilon"], "axis": -1, "mode": 0, "momentum": config["momentum"]}
        elif isinstance(layer, L.Activation):
            old |= {"activation": config["activation"]}
        return old

    layers = [{"class_name": classes.get(layer.__class__.__name__, layer.__class__.__name__), "config": settings(layer)}
              for layer in model.layers]
    layers[0]["config"]["batch_input_shape"] = [None, *SHAPE]
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = b"1.2.2"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers}).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            weights = group.create_group(layer.name)
            names = [f"{layer.name}_{variables[variable.name.split('/')[-1].split(':')[0]]}" for variable in layer.weights]
            weights.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, layer.weights):
                weights[name] = variable.numpy()


def main():
    names = sys.argv[2:] or list(NETWORKS)
    pixels, labels = (part[:TRAINED] for part in images("train"))
    test, expected = images("t10k")
    inputs = [part.reshape(-1, *SHAPE).astype("float32") / 255 for part in (pixels, test)]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        verdicts = Verdicts(TRAINER, folder)
        for index, name in enumerate(names):
            keras.utils.set_random_seed(1)
            model = keras.Sequential([keras.Input(SHAPE), *NETWORKS[name]()])
            model.compile("adam", "sparse_categorical_crossentropy")
            model.fit(inputs[0], labels, batch_size=32, epochs=EPOCHS, verbose=0)
            accuracy = float(np.mean(model.predict(inputs[1], 500, verbose=0).argmax(1) == expected))
            path = folder / f"{name}-1.h5"
            keras_1(model, path)
            verdicts.add(path, "Keras 1 .h5", accuracy)
            if index % 2:
                model = keras.Model(model.inputs, model.outputs)
            for extension in (".h5", ".keras"):
                path = folder / (name + extension)
                model.save(path)
                verdicts.add(path, f"Keras 2 {extension}", accuracy)
        is_wrong = verdicts.finish()
    sys.exit(int(is_wrong))


main()
