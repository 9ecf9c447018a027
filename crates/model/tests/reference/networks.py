"""Computes logits and gradients of the networks in networks.toml with PyTorch, in float64: python networks.py > networks.json

Element i of all parameters together, in the order and layout of Burn, is 0.5 sin(i), and pixel i of the images is
sin(i * i). The loss is the sum over all logits, each times the cosine of its index."""
import json
import math
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F

IMAGES = 3
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh, "none": lambda x: x}


class Parameters:
    """Creates parameters in order."""

    def __init__(self):
        self.count = 0
        self.all = []

    def new(self, *shape, frozen=False):
        size = math.prod(shape)
        values = 0.5 * torch.arange(self.count, self.count + size, dtype=torch.float64).sin()
        self.count += size
        parameter = values.reshape(shape).requires_grad_(not frozen)
        self.all.append(parameter)
        return parameter

    def gradients(self):
        zeros = torch.zeros_like
        return [value for p in self.all for value in (zeros(p) if p.grad is None else p.grad).flatten().tolist()]


def pool(x, block, default):
    kind = block.get("pool", default)
    size = block.get("pool_size", 2)
    stride, padding = block.get("pool_stride", size), block.get("pool_padding", 0)
    match kind:
        case False:
            return x
        case True | "max":
            return F.max_pool2d(x, size, stride, padding)
        case "average":
            return F.avg_pool2d(x, size, stride, padding)
        case "global-max":
            return x.amax((2, 3), keepdim=True)
        case "global-average":
            return x.mean((2, 3), keepdim=True)


class Block:
    def __init__(self, parameters, inputs, block, default_pool):
        self.block, self.default_pool = block, default_pool
        self.outputs = block.get("channels", 32)
        kernel = block.get("kernel", 3)
        self.weight = parameters.new(self.outputs, inputs, kernel, kernel, frozen=block.get("whitening", False))
        self.bias = parameters.new(self.outputs) if block.get("bias", True) else None
        self.scale = parameters.new(self.outputs) if block.get("norm_scale", False) else None

    def __call__(self, x):
        block, norm = self.block, self.block.get("norm", False)
        x = F.conv2d(x, self.weight, None if norm else self.bias, block.get("stride", 1), block.get("padding", 1))
        pool_first = block.get("pool_first", norm)
        if pool_first:
            x = pool(x, block, self.default_pool)
        if norm:
            x = F.batch_norm(x, None, None, self.scale, self.bias, training=True)
        x = ACTIVATIONS[block.get("activation", "relu")](x)
        return x if pool_first else pool(x, block, self.default_pool)


def run(network):
    parameters = Parameters()
    channels, (height, width) = network["channels"], network["input"]
    shape = (IMAGES, channels, height, width)
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    x = images = (index * index).sin().reshape(shape)
    blocks, groups = [], []
    # Parameters of all blocks precede those of all shortcuts.
    for stage in network["blocks"]:
        first = len(blocks)
        group = stage.get("residual")
        for block in group or [stage]:
            blocks.append(Block(parameters, channels, block, group is None))
            channels = blocks[-1].outputs
        groups.append((first, len(blocks), stage if group else None))
    shortcuts = {}
    for first, end, stage in groups:
        before, after = x, x
        for block in blocks[first:end]:
            after = block(after)
        if stage and before.shape != after.shape:
            stride = -(-before.shape[2] // after.shape[2])
            last = dict(stage["residual"][-1], kernel=1, padding=0, stride=stride, activation="none", pool=False)
            shortcuts[first] = Block(parameters, before.shape[1], last, False)
            before = shortcuts[first](before)
        x = pool(ACTIVATIONS[stage.get("activation", "none")](after + before), stage, False) if stage else after
    x = x.flatten(1)
    for outputs in network["dense"]:
        # Burn's layout is [in, out].
        x = x @ parameters.new(x.shape[1], outputs) + parameters.new(outputs)
        x = ACTIVATIONS[network.get("dense_activation", "relu")](x)
    logits = x @ parameters.new(x.shape[1], network["classes"])
    if network.get("output_bias", True):
        logits = logits + parameters.new(network["classes"])
    logits = logits * network.get("logit_scale", 1.0)
    weights = torch.arange(logits.numel(), dtype=torch.float64).cos().reshape(logits.shape)
    (logits * weights).sum().backward()
    rounded = lambda values: [float(f"{value:.7g}") for value in values]
    return {"logits": rounded(logits.flatten().tolist()), "gradients": rounded(parameters.gradients())}


networks = tomllib.loads((Path(__file__).parent / "networks.toml").read_text())
print(json.dumps({name: run(network) for name, network in networks.items()}, separators=(",", ":")))
