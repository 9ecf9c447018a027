"""Trains the preset `cifar` in PyTorch and prints the test accuracy: python cifar_torch.py FOLDER [SEED] [f32|bf16]

FOLDER has a folder of pictures of 32x32 pixels per class in train/ and in test/. The network and the recipe are those
of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498)."""
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from pictures import read

EPOCHS, BATCH, MOMENTUM, SMOOTHING = 10, 1024, 0.85, 0.2
# The paper's rates for sums over 1024 images, converted to means.
RATE = 11.5 / (1 + 1 / (1 - MOMENTUM))
WEIGHT_DECAY = 0.0153 / 11.5
BIAS_FACTOR, WHITENING_BIAS_EPOCHS = 64, 3


def conv(inputs, outputs):
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[:inputs])
    return layer


def norm(channels):
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


class Flatten(nn.Module):
    def forward(self, x):
        return x.flatten(1) / 9


def network(images):
    """`images` are the normalized training images that give the whitening filters."""
    layers = [nn.Conv2d(3, 24, 2), nn.GELU()]
    for inputs, outputs in [(24, 64), (64, 256), (256, 256)]:
        layers += [conv(inputs, outputs), nn.MaxPool2d(2), norm(outputs), nn.GELU()]
        layers += [conv(outputs, outputs), norm(outputs), nn.GELU()]
    model = nn.Sequential(*layers, nn.MaxPool2d(3), Flatten(), nn.Linear(256, 10, bias=False))
    patches = images[:5000].unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors.T / (values + 5e-4).sqrt()[:, None]).reshape(12, 3, 2, 2).flip(0)
    model[0].weight.data = torch.cat([filters, -filters])
    model[0].weight.requires_grad = False
    return model.to(memory_format=torch.channels_last)


def rate(step, steps):
    """Rises from 0.2 to 1, then falls to 0.07."""
    peak = 0.23 * steps
    return 0.2 + 0.8 * step / peak if step < peak else 1 - 0.93 * (step - peak) / (steps - peak)


def floats(model):
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


def synchronize(slow, model, decay):
    """Lookahead: moves the slow weights towards the model, and the model to them."""
    with torch.no_grad():
        for average, weight in zip(slow, floats(model)):
            weight.copy_(average.lerp_(weight, 1 - decay))


def crops(padded, rows, flipped):
    """Takes a crop of 32x32 pixels at a random place of each padded image, mirrored where `flipped`."""
    batch = torch.empty(len(rows), 3, 32, 32)
    right, down = torch.randint(0, 5, (2, len(rows)))
    for x in range(5):
        for y in range(5):
            here = (right == x) & (down == y)
            batch[here] = padded[rows[here], :, y:y + 32, x:x + 32]
    batch[flipped] = batch[flipped].flip(-1)
    return batch.contiguous(memory_format=torch.channels_last)


def test(model, images, labels):
    """Returns the accuracy, and the accuracy of means over mirrored and shifted images."""
    def mirrored(x):
        return model(x).float() + model(x.flip(-1)).float()

    plain = augmented = 0
    for x, y in zip(images.split(1000), labels.split(1000)):
        x = x.contiguous(memory_format=torch.channels_last)
        padded = F.pad(x, [1] * 4, "reflect")
        shifted = mirrored(padded[..., :32, :32]) + mirrored(padded[..., 2:, 2:])
        plain += (model(x).argmax(1) == y).sum().item()
        augmented += ((2 * mirrored(x) + shifted).argmax(1) == y).sum().item()
    return plain / len(labels), augmented / len(labels)


folder = Path(sys.argv[1])
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
precision = sys.argv[3] if len(sys.argv) > 3 else "bf16"
autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
torch.manual_seed(seed)
images, labels = read(folder / "train")
mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
images = (images - mean) / std
start = time.time()
model = network(images)
is_norm_bias = {f"{name}.bias" for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
optimizer = torch.optim.SGD([
    dict(params=[weight for name, weight in trained if name not in is_norm_bias], lr=RATE, weight_decay=WEIGHT_DECAY),
    dict(params=[weight for name, weight in trained if name in is_norm_bias],
         lr=RATE * BIAS_FACTOR, weight_decay=WEIGHT_DECAY / BIAS_FACTOR),
], momentum=MOMENTUM, nesterov=True)
padded = F.pad(images, [2] * 4, "reflect")
flips = torch.rand(len(images)) < 0.5
slow = [tensor.clone() for tensor in floats(model)]
steps = EPOCHS * -(-len(images) // BATCH)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
step = 0
for epoch in range(EPOCHS):
    model[0].bias.requires_grad = epoch < WHITENING_BIAS_EPOCHS
    for rows in torch.randperm(len(images)).split(BATCH):
        batch = crops(padded, rows, flips[rows] ^ (epoch % 2 == 1))
        optimizer.zero_grad()
        with autocast:
            logits = model(batch)
        F.cross_entropy(logits.float(), labels[rows], label_smoothing=SMOOTHING).backward()
        optimizer.step()
        schedule.step()
        step += 1
        if step % 5 == 0:
            synchronize(slow, model, 0.95 ** 5 * (step / steps) ** 3)
    print(f"epoch {epoch + 1}, {time.time() - start:.0f} s", file=sys.stderr, flush=True)
synchronize(slow, model, 1)
seconds = time.time() - start

model.eval()
images, labels = read(folder / "test")
with torch.inference_mode(), autocast:
    plain, augmented = test(model, (images - mean) / std, labels)
print(f"seed {seed} {precision}: test {100 * plain:.2f}%, with test-time augmentation {100 * augmented:.2f}%, "
      f"{seconds:.0f} s ({EPOCHS * len(padded) / seconds:.0f} images/s)")
