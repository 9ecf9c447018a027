"""Writes the files of weights in this folder: the network of the preset `tiny`, trained in PyTorch, as
PyTorch and Keras save it; its logits on ten test images; and a deeper network with layers of equal shapes.

    pip install torch safetensors keras tensorflow-cpu
    python tests/weights/make.py

All files of a network contain the same weights, so importing any of them gives the same network, byte for byte.
"""

import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import safetensors.torch
import torch

import mnist

HERE = pathlib.Path(__file__).resolve().parent

torch.manual_seed(1)
network = mnist.Named(channels=(8,), padding=0, dense=())
pixels, labels = mnist.images("train")
mnist.train(network, mnist.normalized(pixels, 0, 1), labels)
test = mnist.normalized(mnist.images("t10k")[0][:10], 0, 1)
expected = mnist.logits(network, test)
weights = network.state_dict()

torch.save(weights, HERE / "tiny.pt")
torch.save(weights, HERE / "tiny-legacy.pth", _use_new_zipfile_serialization=False)
safetensors.torch.save_file(weights, HERE / "tiny.safetensors")

# A training checkpoint of a compiled network of blocks, with channels-last filters.
blocks = {
    "conv_block.0.weight": weights["conv1.weight"].to(memory_format=torch.channels_last),
    "conv_block.0.bias": weights["conv1.bias"],
    "fc_block.1.weight": weights["fc1.weight"],
    "fc_block.1.bias": weights["fc1.bias"],
}
blocks = {f"_orig_mod.{name}": tensor for name, tensor in blocks.items()}
optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2, 2))])
checkpoint = {"epoch": 1, "loss": torch.tensor(0.1), "accuracy": np.float64(0.9), "model_state_dict": blocks,
              "optimizer_state_dict": optimizer.state_dict()}
torch.save(checkpoint, HERE / "tiny-checkpoint.pt")

def with_weights(network, weights, maps):
    """Copies weights from PyTorch to a Keras network, and returns it.

    `maps` is the shape of the feature maps before the first dense layer, [channels, height, width]. Keras has
    channels last: filters are [ky, kx, in, out], and the inputs of dense weights [in, out] are
    [height, width, channels].
    """
    arrays = []
    for tensor in weights.values():
        array = tensor.numpy()
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2 and maps:
            array = array.reshape(-1, *maps).transpose(2, 3, 1, 0).reshape(-1, len(array))
            maps = None
        elif array.ndim == 2:
            array = array.T
        arrays.append(array)
    network.set_weights(arrays)
    return network


def assert_same(network, keras_network):
    difference = np.abs(mnist.keras_logits(keras_network, test) - mnist.logits(network, test)).max()
    assert difference < 1e-4, difference
    print("largest difference of logits between PyTorch and Keras:", difference)


keras_network = mnist.keras_network(channels=(8,), padding="valid", dense=())
assert_same(network, with_weights(keras_network, weights, (8, 13, 13)))
keras_network.save_weights(HERE / "tiny.weights.h5")
keras_network.save(HERE / "tiny.keras")
keras_network.save(HERE / "tiny-whole.h5")

(HERE / "logits.json").write_text(json.dumps(expected.astype(float).round(6).tolist(), indent=0))

# Layers of equal shapes, ordered by the numbers in their names: in PyTorch 3, 6, 12 and 14.
deep = mnist.sequential(channels=(2, 2, 2), dense=(4, 4, 4)).eval()
torch.save(deep.state_dict(), HERE / "deep.pt")
keras_deep = mnist.keras_network(channels=(2, 2, 2), dense=(4, 4, 4))
assert_same(deep, with_weights(keras_deep, deep.state_dict(), (2, 3, 3)))
keras_deep.save_weights(HERE / "deep.weights.h5")
keras_deep.save(HERE / "deep-whole.h5")

# Weights of a network that is accurate enough to be recognized by them.
torch.manual_seed(3)
lenet = torch.nn.Sequential(
    torch.nn.Conv2d(1, 6, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(6, 12, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    torch.nn.Flatten(), torch.nn.Linear(300, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10),
)
for _ in range(4):
    mnist.train(lenet, mnist.normalized(pixels, 0.1307, 0.3081), labels)
torch.save(lenet.state_dict(), HERE / "lenet.pt")
safetensors.torch.save_file(lenet.state_dict(), HERE / "lenet.safetensors")
keras_lenet = keras.Sequential([
    keras.Input((28, 28, 1)),
    keras.layers.Conv2D(6, 5, padding="same", activation="relu"), keras.layers.MaxPooling2D(),
    keras.layers.Conv2D(12, 5, activation="relu"), keras.layers.MaxPooling2D(),
    keras.layers.Flatten(), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10),
])
assert_same(lenet, with_weights(keras_lenet, lenet.state_dict(), (12, 5, 5)))
keras_lenet.save_weights(HERE / "lenet.weights.h5")

# A network of the kind of Burn's own example, with the names and the layout of Burn's modules.
torch.manual_seed(3)
example = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.GELU(), torch.nn.MaxPool2d(2),
    torch.nn.Conv2d(8, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.GELU(), torch.nn.MaxPool2d(2),
    torch.nn.Flatten(), torch.nn.Linear(400, 32), torch.nn.GELU(), torch.nn.Linear(32, 10),
)
for _ in range(3):
    mnist.train(example, mnist.normalized(pixels, 0.1307, 0.3081), labels)
layers = {"0": "conv1.conv", "1": "conv1.norm", "4": "conv2.conv", "5": "conv2.norm", "9": "fc1", "11": "fc2"}
burn = {}
for name, tensor in example.state_dict().items():
    layer, part = name.split(".")
    layer = layers[layer]
    if layer.endswith("norm"):
        part = {"weight": "gamma", "bias": "beta"}.get(part, part)
    if part != "num_batches_tracked":
        burn[f"{layer}.{part}"] = tensor.T.contiguous() if tensor.ndim == 2 else tensor
safetensors.torch.save_file(burn, HERE / "burn-example.safetensors", metadata={"producer": "burn"})

# A whole module, in both formats of PyTorch and in TorchScript. Its batch normalization has an epsilon of its own.
torch.manual_seed(2)
module = torch.nn.Sequential(
    torch.nn.Conv2d(1, 2, 3, bias=False), torch.nn.BatchNorm2d(2, eps=0.01), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    torch.nn.Flatten(), torch.nn.Linear(2 * 13 * 13, 10),
)
mnist.train(module, mnist.normalized(pixels, 0, 1), labels)
torch.save(module, HERE / "module.pt")
torch.save(module, HERE / "module-legacy.pt", _use_new_zipfile_serialization=False)
torch.jit.save(torch.jit.script(module), HERE / "script.pt")
