"""The embedded MNIST, and the networks of the presets in PyTorch and Keras."""

import gzip
import pathlib

import numpy as np
import torch
from torch import nn

PROJECT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "crates/data/mnist"


def read(path, header):
    """Returns the elements of an IDX file whose header has `header` bytes."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read()[header:], np.uint8)


def images(split, folder=FOLDER):
    """Returns the images of a split, `[N, 1, 28, 28]` with pixels from 0 to 255, and their labels."""
    pixels = read(folder / f"{split}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    return pixels, read(folder / f"{split}-labels-idx1-ubyte.gz", 8).astype(np.int64)


def normalized(pixels, mean, std):
    return ((pixels.astype(np.float32) / 255 - mean) / std).astype(np.float32)


class Named(nn.Module):
    """Layers conv1, conv2, ..., fc1, fc2. Max-pooling follows each convolution except those in `unpooled`."""

    def __init__(self, channels=(32, 64), kernel=3, padding=1, dense=(128,), unpooled=()):
        super().__init__()
        self.blocks, size, before = len(channels), 28, 1
        self.pooled = [i not in unpooled for i in range(self.blocks)]
        for i, after in enumerate(channels):
            self.add_module(f"conv{i + 1}", nn.Conv2d(before, after, kernel, padding=padding))
            size = size + 2 * padding + 1 - kernel
            size, before = size // 2 if self.pooled[i] else size, after
        widths = [before * size * size, *dense, 10]
        self.dense = len(widths) - 1
        for i in range(self.dense):
            self.add_module(f"fc{i + 1}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x):
        for i in range(self.blocks):
            x = torch.relu(getattr(self, f"conv{i + 1}")(x))
            x = nn.functional.max_pool2d(x, 2) if self.pooled[i] else x
        x = x.flatten(1)
        for i in range(self.dense):
            x = getattr(self, f"fc{i + 1}")(torch.relu(x) if i else x)
        return x


def conv_norm(inputs, outputs, pool=False):
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *[nn.MaxPool2d(2)] * pool)


class ResNet9(nn.Module):
    """Layers conv1.0 (convolution), conv1.1 (batch normalization), ..., res1.0.0, res1.0.1, res1.1.0, ..., classifier."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = conv_norm(1, 16), conv_norm(16, 32, pool=True)
        self.res1 = nn.Sequential(conv_norm(32, 32), conv_norm(32, 32))
        self.conv3, self.conv4 = conv_norm(32, 64, pool=True), conv_norm(64, 128, pool=True)
        self.res2 = nn.Sequential(conv_norm(128, 128), conv_norm(128, 128))
        self.classifier = nn.Linear(128, 10)

    def forward(self, x):
        x = self.conv2(self.conv1(x))
        x = self.res1(x) + x
        x = self.conv4(self.conv3(x))
        x = self.res2(x) + x
        return self.classifier(x.amax((2, 3)))


class FoldedResNet9(nn.Module):
    """The network of ResNet9 with batch normalization folded into layers conv1, ..., conv8."""

    def __init__(self):
        super().__init__()
        widths = [1, 16, 32, 32, 32, 64, 128, 128, 128]
        for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            self.add_module(f"conv{i + 1}", nn.Conv2d(inputs, outputs, 3, padding=1))
        self.fc1 = nn.Linear(128, 10)

    def forward(self, x):
        def block(number, x, pool=False):
            x = torch.relu(getattr(self, f"conv{number}")(x))
            return nn.functional.max_pool2d(x, 2) if pool else x

        x = block(2, block(1, x), pool=True)
        x = block(4, block(3, x)) + x
        x = block(6, block(5, x, pool=True), pool=True)
        x = block(8, block(7, x)) + x
        return self.fc1(x.amax((2, 3)))


class Blocks(nn.Module):
    """Layers conv_block.0, conv_block.3, fc_block.1, fc_block.3 (fc_block.4 with dropout)."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )
        drop = [nn.Dropout(dropout)] if dropout else []
        self.fc_block = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), *drop, nn.Linear(128, 10),
        )

    def forward(self, x):
        return self.fc_block(self.conv_block(x))


def sequential(channels, dense):
    """Returns a single nn.Sequential. Its convolutions are 0, 3, 6, ..., and dense layers follow."""
    layers, size, before = [], 28, 1
    for after in channels:
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        size, before = size // 2, after
    widths = [before * size * size, *dense, 10]
    layers.append(nn.Flatten())
    for i in range(len(widths) - 1):
        layers += [nn.ReLU()] * bool(i) + [nn.Linear(widths[i], widths[i + 1])]
    return nn.Sequential(*layers)


def keras_network(channels=(32, 64), kernel=3, padding="same", dense=(128,), dropout=0.0):
    import keras

    layers = [keras.Input((28, 28, 1))]
    for filters in channels:
        layers.append(keras.layers.Conv2D(filters, kernel, padding=padding, activation="relu"))
        layers.append(keras.layers.MaxPooling2D())
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(width, activation="relu") for width in dense]
    layers += [keras.layers.Dropout(dropout)] if dropout else []
    layers.append(keras.layers.Dense(10))
    network = keras.Sequential(layers)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return network


def train(network, pixels, labels, batch=64):
    """Trains for an epoch with Adam, and returns the optimizer. `pixels` are normalized."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    network.train()
    for start in range(0, len(pixels), batch):
        batch_pixels = torch.from_numpy(pixels[start:start + batch])
        batch_labels = torch.from_numpy(labels[start:start + batch])
        loss = nn.functional.cross_entropy(network(batch_pixels), batch_labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    return optimizer


def logits(network, pixels):
    """Returns the logits of a PyTorch network, `[N, 10]`."""
    with torch.no_grad():
        batches = [network(torch.from_numpy(batch)) for batch in np.array_split(pixels, 20)]
    return torch.cat(batches).numpy()


def keras_logits(network, pixels):
    """Returns the logits of a Keras network, `[N, 10]`. `pixels` are `[N, 1, 28, 28]`, as in PyTorch."""
    return network.predict(pixels.transpose(0, 2, 3, 1), batch_size=500, verbose=0)
