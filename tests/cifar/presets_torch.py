"""Trains the preset `vgg` or `resnet9` in PyTorch and prints the test accuracy:

    python presets_torch.py FOLDER vgg|resnet9 [EPOCHS] [SEED]

FOLDER has a folder of pictures of 32x32 pixels per class in train/ and in test/."""
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from pictures import read

BATCH, RATE, SMOOTHING, DECAY, PADDING = 128, 0.1, 0.1, 5e-4, 4


def block(inputs, outputs, pool=False):
    norm = nn.BatchNorm2d(outputs)
    norm.weight.requires_grad = False
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), norm, nn.ReLU()]
    return nn.Sequential(*layers[:1], *[nn.MaxPool2d(2)] * pool, *layers[1:])


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.blocks = nn.Sequential(block(channels, channels), block(channels, channels))

    def forward(self, x):
        return x + self.blocks(x)


class ResNet9(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(
            block(3, 64), block(64, 128, pool=True), Residual(128),
            block(128, 256, pool=True), block(256, 512, pool=True), Residual(512))
        self.head = nn.Linear(512, 10, bias=False)

    def forward(self, x):
        return self.head(self.blocks(x).amax((2, 3))) / 8


def vgg():
    return nn.Sequential(
        block(3, 64), block(64, 64, pool=True), block(64, 128), block(128, 128, pool=True),
        block(128, 256), block(256, 256, pool=True), nn.Flatten(), nn.Linear(4096, 10))


def crops(padded, rows):
    """Takes a crop of 32x32 pixels at a random place of each padded image, mirrored with probability 0.5."""
    batch = torch.empty(len(rows), 3, 32, 32)
    right, down = torch.randint(0, 2 * PADDING + 1, (2, len(rows)))
    for index, (row, x, y) in enumerate(zip(rows, right, down)):
        batch[index] = padded[row, :, y:y + 32, x:x + 32]
    flipped = torch.rand(len(rows)) < 0.5
    batch[flipped] = batch[flipped].flip(-1)
    return batch.contiguous(memory_format=torch.channels_last)


folder, preset = Path(sys.argv[1]), sys.argv[2]
epochs = int(sys.argv[3]) if len(sys.argv) > 3 else 10
torch.manual_seed(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
images, labels = read(folder / "train")
# The validation images that the trainer holds out.
kept = torch.randperm(len(images))[len(images) // 10:]
images, labels = images[kept], labels[kept]
mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
padded = F.pad((images - mean) / std, [PADDING] * 4, "reflect")
model = (ResNet9() if preset == "resnet9" else vgg()).to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(
    [p for p in model.parameters() if p.requires_grad], RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
steps = epochs * -(-len(images) // BATCH)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, cycle_momentum=False)
start = time.time()
for epoch in range(epochs):
    for rows in torch.randperm(len(images)).split(BATCH):
        optimizer.zero_grad()
        F.cross_entropy(model(crops(padded, rows)), labels[rows], label_smoothing=SMOOTHING).backward()
        optimizer.step()
        schedule.step()
    print(f"epoch {epoch + 1}, {time.time() - start:.0f} s", file=sys.stderr, flush=True)
seconds = time.time() - start

model.eval()
pixels, labels = read(folder / "test")
with torch.inference_mode():
    batches = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last).split(1000)
    found = torch.cat([model(batch).argmax(1) for batch in batches])
print(f"{preset}: test {100 * (found == labels).float().mean():.2f}% after {epochs} epochs, {seconds:.0f} s "
      f"({epochs * len(padded) / seconds:.0f} images/s)")
