"""Verifies `trainer inspect --explain` against PyTorch: correlations of the heat maps on the same weights.

    pip install torch safetensors pillow numpy
    cargo build -p trainer
    python tests/explanations/check.py target/debug/trainer [--images 20] [--cifar FOLDER]

FOLDER has a folder of pictures of 32x32 pixels per class of CIFAR-10. PyTorch computes the maps from their definitions, with
torch.autograd.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(PROJECT / "tests/weights"))

import mnist  # noqa: E402

STEPS = 64


class Pretrained:
    """`artifacts/pretrained`: two convolutions with max-pooling, two dense layers."""

    name = "pretrained"

    def __init__(self, weights):
        self.weights = weights

    def conv(self, number, x):
        return F.conv2d(x, self.weights[f"conv{number}.weight"], self.weights[f"conv{number}.bias"], padding=1)

    def maps(self, x):
        """Returns the activations of the last convolution, before they are pooled."""
        return F.relu(self.conv(2, F.max_pool2d(F.relu(self.conv(1, x)), 2)))

    def logits(self, maps):
        x = F.max_pool2d(maps, 2).flatten(1)
        x = F.relu(F.linear(x, self.weights["fc1.weight"], self.weights["fc1.bias"]))
        return F.linear(x, self.weights["fc2.weight"], self.weights["fc2.bias"])


class PretrainedCifar:
    """`artifacts/pretrained-cifar`: seven convolutions with GELU, pooled before the activation; global max-pooling."""

    name = "pretrained-cifar"

    def __init__(self, weights):
        self.weights = weights

    def conv(self, number, x, padding=1, pool=False):
        weights = self.weights
        x = F.conv2d(x, weights[f"conv{number}.weight"], weights[f"conv{number}.bias"], padding=padding)
        return F.gelu(F.max_pool2d(x, 2) if pool else x)

    def maps(self, x):
        x = self.conv(1, x, padding=0)
        for number in range(2, 8):
            x = self.conv(number, x, pool=number in (2, 4, 6))
        return x

    def logits(self, maps):
        return F.linear(maps.amax((2, 3)), self.weights["fc1.weight"])


def grad_cam(network, image, label):
    maps = network.maps(image).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.logits(maps)[0, label], maps)
    weights = gradient.mean((2, 3), keepdim=True)
    map = F.relu((weights * maps.detach()).sum(1, keepdim=True))
    return F.interpolate(map, image.shape[2:], mode="bilinear", align_corners=False)[0, 0]


def integrated_gradients(network, image, black, label):
    sum = torch.zeros_like(image)
    for step in range(STEPS):
        point = (black + (step + 0.5) / STEPS * (image - black)).requires_grad_()
        (gradient,) = torch.autograd.grad(network.logits(network.maps(point))[0, label], point)
        sum += gradient
    return ((image - black) * sum / STEPS)[0].sum(0)


def check(trainer, network, config, images):
    """Compares the maps of images, each a pair of pixels `[C, H, W]` and of the argument of `--explain`."""
    found = config["images"]
    mean, std = (np.reshape(found[key], (-1, 1, 1)) for key in ("mean", "std"))
    correlations = {"grad_cam": [], "integrated_gradients": []}
    differences, errors, empty = [], [], 0
    for pixels, argument in images:
        command = [trainer, "inspect", network.name, "--explain", argument, "--json", "--quiet"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        explanation = json.loads(text)
        normalize = lambda pixels: torch.from_numpy(((pixels / 255 - mean) / std).astype(np.float32))[None]
        image, black = normalize(pixels), normalize(np.zeros(pixels.shape))
        with torch.no_grad():
            logits = [network.logits(network.maps(x)) for x in (image, black)]
        label = logits[0].argmax(1).item()
        assert found["classes"][label] == explanation["class"], argument
        probability = logits[0].softmax(1)[0, label].item()
        assert abs(probability - explanation["probability"]) < 1e-4, argument
        expected = {
            "grad_cam": grad_cam(network, image, label),
            "integrated_gradients": integrated_gradients(network, image, black, label),
        }
        for name, map in expected.items():
            ours, theirs = np.array(explanation[name]).ravel(), map.numpy().ravel()
            if not theirs.any():
                # Without evidence there is no correlation.
                assert not ours.any(), (name, argument)
                empty += 1
                continue
            correlations[name].append(np.corrcoef(ours, theirs)[0, 1])
            differences.append(np.abs(ours - theirs).max() / np.abs(theirs).max())
        difference = (logits[0] - logits[1])[0, label].item()
        total = np.sum(explanation["integrated_gradients"])
        errors.append(abs(total - difference) / abs(difference))
    print(f"{network.name}, {len(images)} images")
    for name, values in correlations.items():
        print(f"  {name}: correlation with PyTorch at least {min(values):.6f}, mean {np.mean(values):.6f}")
        assert all(value > 0.99 for value in values)
    print(f"  maps that are 0 everywhere in both: {empty}")
    print(f"  largest difference of a pixel: {max(differences):.1e} of the largest value of its map")
    print(f"  integrated gradients, sum against logit difference: error at most {max(errors):.2%}, mean {np.mean(errors):.2%}")


def load(network):
    folder = PROJECT / "artifacts" / network.name
    weights = {name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()}
    return network(weights), tomllib.loads((folder / "config.toml").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainer", type=pathlib.Path, help="the program")
    parser.add_argument("--images", type=int, default=20, help="number of images of each network")
    parser.add_argument("--cifar", type=pathlib.Path, help="folder of CIFAR-10's test pictures")
    options = parser.parse_args()
    trainer = options.trainer.resolve()

    digits, _ = mnist.images("t10k")
    images = [(digits[index], str(index)) for index in range(options.images)]
    check(trainer, *load(Pretrained), images)
    if options.cifar is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        images = []
        files = [sorted(path.iterdir()) for path in sorted(options.cifar.iterdir())]
        for index in range(options.images):
            # Decoders of JPEG differ by rounding, so both programs get the pixels.
            picture = Image.open(files[index % len(files)][index // len(files)]).convert("RGB")
            path = pathlib.Path(folder) / f"{index}.png"
            picture.save(path)
            images.append((np.array(picture).transpose(2, 0, 1), path))
        check(trainer, *load(PretrainedCifar), images)


main()
