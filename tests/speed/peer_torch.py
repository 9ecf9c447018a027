"""Measures PyTorch on the CPU; see peer.py.

For inference, the batch normalization is part of the convolutions, as in the files that the trainer exports. The
images are in memory, normalized, in the layout of the network, and not augmented.
"""
import torch
from torch import nn

import peer

VARIANTS = {
    "plain": (),
    "channels-last": ("channels-last",),
    "compiled": ("channels-last", "compiled"),
    "bfloat16": ("channels-last", "bfloat16"),
    "compiled-bfloat16": ("channels-last", "bfloat16", "compiled"),
}


class Residual(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        return x + self.blocks(x)


class ResNet9(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.blocks = nn.Sequential(
            block(3, 64), block(64, 128, pool=True), Residual(block(128, 128), block(128, 128)),
            block(128, 256, pool=True), block(256, 512, pool=True), Residual(block(512, 512), block(512, 512)))
        self.head = nn.Linear(512, peer.CLASSES, bias=False)

    def forward(self, x):
        return self.head(self.blocks(x).amax((2, 3))) / 8


def normalized_block(inputs, outputs, pool=False):
    norm = nn.BatchNorm2d(outputs)
    norm.weight.requires_grad = False
    pools = [nn.MaxPool2d(2)] * pool
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), *pools, norm, nn.ReLU())


def block(inputs, outputs, pool=False):
    pools = [nn.MaxPool2d(2)] * pool
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), *pools)


def network(name, block):
    """Returns the network of a preset of the trainer, crates/trainer/presets."""
    if name == "resnet9":
        return ResNet9(block)
    if name == "vgg":
        return nn.Sequential(
            block(3, 64), block(64, 64, pool=True), block(64, 128), block(128, 128, pool=True),
            block(128, 256), block(256, 256, pool=True), nn.Flatten(), nn.Linear(4096, peer.CLASSES))
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, peer.CLASSES))


def prepare_training(batch):
    pixels, labels = images(max(2048, 4 * batch))
    model = network(arguments.network, normalized_block).to(memory_format=layout)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    peer.check_parameters(arguments.network, sum(weight.numel() for weight in weights))
    step_model = torch.compile(model, dynamic=False) if "compiled" in options else model
    if arguments.network == "convnet":
        optimizer = torch.optim.Adam(weights, 1e-3)
    else:
        optimizer = torch.optim.SGD(weights, 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    smoothing = 0.0 if arguments.network == "convnet" else 0.1

    def step():
        rows = torch.randint(len(pixels), (batch,))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in options):
            logits = step_model(pixels[rows])
        nn.functional.cross_entropy(logits.float(), labels[rows], label_smoothing=smoothing).backward()
        optimizer.step()

    return step, batch


def prepare_inference(batch):
    kind = torch.bfloat16 if "bfloat16" in options else torch.float32
    model = network(arguments.network, block).eval().to(kind, memory_format=layout)
    pixels = images(batch)[0].to(kind)
    if "compiled" in options:
        # Constant weights can be packed once.
        model = torch.compile(model, dynamic=False, options={"freezing": True})

    def classify():
        with torch.no_grad():
            model(pixels)

    return classify, batch


def images(count):
    pixels, labels = peer.images(arguments.network, count)
    return torch.from_numpy(pixels).contiguous(memory_format=layout), torch.from_numpy(labels)


def prepare(kind, batch):
    return prepare_training(batch) if kind == "train" else prepare_inference(batch)


arguments = peer.arguments(VARIANTS)
options = VARIANTS[arguments.variant]
layout = torch.channels_last if "channels-last" in options else torch.contiguous_format
torch.manual_seed(1)
torch.set_num_threads(arguments.threads)
peer.answer(prepare, arguments.seconds)
