"""Verifies `trainer import` and `export` against PyTorch, Keras and ONNX Runtime, with networks that differ in the
names of their weights and in the file format, a residual network with batch normalization, and a network with every
kind of layer.

    pip install torch safetensors keras tensorflow-cpu onnx onnxruntime pillow
    cargo build -p trainer
    python tests/weights/check.py target/debug/trainer [CASE ...]

Without names, all cases run: convnet, half-norm, single-pool, dropout, three-block, resnet9, layers.
"""

import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import onnx
import onnxruntime
import safetensors.torch
import torch
from PIL import Image

import mnist

TRAINER = pathlib.Path(sys.argv[1]).resolve()
TOLERANCE = 1e-4
# Images whose values are compared. The predicted classes of all test images are.
COMPARED = 1000

pixels, labels = mnist.images("t10k")
train_pixels, train_labels = (part[:12_800] for part in mnist.images("train"))
MEAN_STD = (0.1307, 0.3081)
CASES = sys.argv[2:] or ["convnet", "half-norm", "single-pool", "dropout", "three-block", "resnet9", "layers"]

# The preset `resnet9` with a quarter of the channels, for gray images, with the order of PyTorch's layers.
RESNET9 = """
[model]
dense = []
blocks = [
    { channels = 16, norm = true, norm_scale = true, pool = false },
    { channels = 32, norm = true, norm_scale = true, pool_first = false },
    { residual = [{ channels = 32, norm = true }, { channels = 32, norm = true }] },
    { channels = 64, norm = true, norm_scale = true, pool_first = false },
    { channels = 128, norm = true, norm_scale = true, pool_first = false },
    { residual = [{ channels = 128, norm = true }, { channels = 128, norm = true }], pool = "global-max" },
]
"""
# Every kind of layer that an ONNX file can have.
LAYERS = """
[data]
limit_train = 2000
[model]
dense = [32]
dense_activation = "silu"
output_bias = false
logit_scale = 0.5
blocks = [
    { channels = 8, kernel = 2, padding = 0, whitening = true, activation = "gelu", pool = false },
    { channels = 8, kernel = 5, padding = 2, norm = true, activation = "gelu" },
    { residual = [
        { channels = 16, stride = 2, norm = true, norm_scale = true, activation = "tanh" },
        { channels = 16, norm = true, norm_scale = true, activation = "none" },
    ], activation = "relu", pool = "average", pool_size = 3, pool_stride = 2, pool_padding = 1 },
    { residual = [{ channels = 16, activation = "silu", initialization = "dirac" }], activation = "gelu" },
    { channels = 16, pool = "max", pool_size = 3, pool_stride = 1, pool_padding = 1, dropout = 0.1 },
    { channels = 32, padding = 0, bias = false, pool = "average" },
    { channels = 24, kernel = 1, padding = 0, activation = "none", pool = "global-max" },
]
[training]
max_steps = 10
"""


def trainer(*arguments):
    process = subprocess.run([TRAINER, *map(str, arguments)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def log_probabilities(run, pictures):
    """Returns the logarithms of the probabilities that `predict` prints for all test images, `[N, 10]`."""
    text = trainer("predict", run, pictures, "--raw", "--csv", "--top", 10, "-q")
    result = np.zeros((len(pixels), 10))
    for row in list(csv.reader(text.splitlines()))[1:]:
        index = int(pathlib.Path(row[0]).stem)
        for place in range(10):
            with np.errstate(divide="ignore"):
                result[index, int(row[1 + 2 * place])] = np.log(float(row[2 + 2 * place]))
    return result


def compare(found, expected, what):
    """Asserts equal values on the first images, up to a tolerance, and equal classes on all."""
    difference = np.abs(found[:COMPARED] - expected[:COMPARED])
    difference = difference[np.isfinite(difference)].max()
    equal = (found.argmax(1) == expected.argmax(1)).sum()
    assert difference < TOLERANCE and equal == len(expected), (what, difference, equal)
    return f"{what}: largest difference {difference:.1e}, {equal} of {len(expected)} classes equal"


def pytorch(network, scaling, save, batch=64):
    torch.manual_seed(7)
    network = network()
    optimizer = mnist.train(network, mnist.normalized(train_pixels, *scaling), train_labels, batch)
    save(network, optimizer)
    return mnist.logits(network, mnist.normalized(pixels, *scaling))


def keras(network, scaling, save):
    import keras as library

    library.utils.set_random_seed(7)
    network = network()
    inputs = mnist.normalized(train_pixels, *scaling).transpose(0, 2, 3, 1)
    network.fit(inputs, train_labels, batch_size=64, epochs=1, verbose=0)
    save(network)
    return mnist.keras_logits(network, mnist.normalized(pixels, *scaling))


def named(**sizes):
    return lambda: mnist.Named(**sizes)


def cases(folder):
    """Yields for each network: file, name and flags of its settings, normalization, a function that returns the expected
    logits, its constructor in PyTorch with the names of an exported file."""
    def preset(name):
        return name, ("--preset", name)

    file = folder / "simple_cnn.pth"
    yield file, *preset("convnet"), MEAN_STD, lambda: pytorch(
        named(), MEAN_STD, lambda network, _: torch.save(network.state_dict(), file)), named()

    file = folder / "resnet9.pt"
    config = folder / "resnet9.toml"
    config.write_text(RESNET9)
    yield file, "resnet9", ("--config", config), MEAN_STD, lambda: pytorch(
        mnist.ResNet9, MEAN_STD, lambda network, _: torch.save(network.state_dict(), file)), mnist.FoldedResNet9

    file = folder / "blocks.pt"
    yield file, *preset("half-norm"), (0.5, 0.5), lambda: pytorch(
        mnist.Blocks, (0.5, 0.5), lambda network, optimizer: torch.save(
            {"epoch": 1, "optimizer": optimizer.state_dict(),
             "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}},
            file, _use_new_zipfile_serialization=False)), named()

    file = folder / "compiled.safetensors"
    yield file, *preset("single-pool"), MEAN_STD, lambda: pytorch(
        named(unpooled=(0,)), MEAN_STD, lambda network, _: safetensors.torch.save_file(
            {f"_orig_mod.{k}": v for k, v in network.state_dict().items()}, file)
    ), named(unpooled=(0,))

    file = folder / "notebook.weights.h5"
    yield file, *preset("dropout"), (0, 1), lambda: keras(
        lambda: mnist.keras_network(dropout=0.5), (0, 1),
        lambda network: network.save_weights(file)), named()

    file = folder / "three.keras"
    yield file, *preset("three-block"), MEAN_STD, lambda: keras(
        lambda: mnist.keras_network(channels=(32, 64, 128)), MEAN_STD,
        lambda network: network.save(file)), named(channels=(32, 64, 128))


def run_onnx(path, inputs):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: part})[0] for part in np.array_split(inputs, 13)]
    metadata = session.get_modelmeta().custom_metadata_map
    assert len(json.loads(metadata["classes"])) == 10, metadata
    return np.concatenate(parts), metadata


def run_keras(path, inputs):
    import keras as library

    network = library.saving.load_model(path)
    return network.predict(inputs.transpose(0, 2, 3, 1).astype("float32"), 500, verbose=0)


def check(folder, pictures, file, name, settings, scaling, logits, network):
    runs = folder / "runs"
    print(f"{file.name}, {name}")
    expected = logits()
    imported = trainer("import", file, *settings, "--out", runs, "--run-name", file.stem)
    accuracy = (expected.argmax(1) == labels).mean()
    assert f"{100 * accuracy:.2f}%" in imported, (imported, accuracy)
    run = runs / file.stem
    print(" ", compare(log_probabilities(run, pictures), log_softmax(expected), "import, log-probabilities"))

    def export(form, *options, run=run):
        extension = {"onnx": "onnx", "keras": "keras"}.get(form, "safetensors")
        path = folder / f"{run.name}-{form}{''.join(options)}.{extension}"
        path.unlink(missing_ok=True)
        trainer("export", run, "--format", form, "--to", path, *options)
        return path

    weights = safetensors.torch.load_file(export("pytorch-safetensors"))
    torch_network = network()
    torch_network.load_state_dict(weights, strict=True)
    inputs = mnist.normalized(pixels, *scaling)
    print(" ", compare(mnist.logits(torch_network.eval(), inputs), expected, "PyTorch, strict=True"))
    found, metadata = run_onnx(export("onnx"), inputs)
    print(" ", compare(found, expected, "ONNX Runtime"))
    assert abs(float(metadata["accuracy"]) - (found.argmax(1) == labels).mean()) < 1e-9
    found, _ = run_onnx(export("onnx", "--raw-pixels"), pixels)
    print(" ", compare(found, expected, "ONNX Runtime, raw pixels"))
    for options in (), ("--raw-pixels",):
        found = run_keras(export("keras", *options), pixels if options else inputs)
        print(" ", compare(found, expected, ", ".join(["Keras", *options])))
    found, _ = run_onnx(export("onnx", "--half"), inputs)
    print(f"  ONNX in half precision: largest difference {np.abs(found - expected).max():.1e}, "
          f"{(found.argmax(1) == expected.argmax(1)).sum()} of {len(expected)} classes equal")

    for form in "pytorch-safetensors", "safetensors":
        first = export(form)
        again = runs / f"{file.stem}-{form}-again"
        trainer("import", first, *settings, "--out", runs, "--run-name", again.name)
        second = export(form, run=again)
        assert first.read_bytes() == second.read_bytes(), form
    print("  export, import, export: byte-identical")


def check_layers(folder, pictures):
    """Trains a network with every kind of layer, and compares its predictions with those of its ONNX file."""
    print("layers")
    config, runs, file = folder / "layers.toml", folder / "runs", folder / "layers.onnx"
    config.write_text(LAYERS)
    trainer("--config", config, "--out", runs, "--run-name", "layers", "-q")
    expected = log_probabilities(runs / "layers", pictures)
    for options in (), ("--raw-pixels",):
        file.unlink(missing_ok=True)
        trainer("export", runs / "layers", "--format", "onnx", "--to", file, *options)
        found, _ = run_onnx(file, pixels if options else mnist.normalized(pixels, *MEAN_STD))
        print(" ", compare(log_softmax(found), expected, " ".join(["ONNX Runtime, log-probabilities", *options])))
        file.with_suffix(".keras").unlink(missing_ok=True)
        trainer("export", runs / "layers", "--format", "keras", "--to", file.with_suffix(".keras"), *options)
        found = run_keras(file.with_suffix(".keras"), pixels if options else mnist.normalized(pixels, *MEAN_STD))
        print(" ", compare(log_softmax(found), expected, " ".join(["Keras, log-probabilities", *options])))


with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    pictures = folder / "pictures"
    pictures.mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image[0]).save(pictures / f"{index}.png")
    for case in cases(folder):
        if case[1] in CASES:
            check(folder, pictures, *case)
    if "layers" in CASES:
        check_layers(folder, pictures)
print("all checks passed")
