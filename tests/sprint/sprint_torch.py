"""Trains the preset `sprint` in PyTorch and prints the test accuracy: python sprint_torch.py [SEED]"""
import sys

import torch
from torch import nn

from digits import normalized, read

torch.manual_seed(int(sys.argv[1]) if len(sys.argv) > 1 else 42)
pixels, labels = read("train")
# Normalized once for all batches, in the memory layout with the fastest convolutions.
images = torch.from_numpy(normalized(pixels)).unsqueeze(1).contiguous(memory_format=torch.channels_last)
targets = torch.from_numpy(labels)
model = nn.Sequential(
    nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(800, 128), nn.ReLU(), nn.Linear(128, 10),
).to(memory_format=torch.channels_last)
optimizer = torch.optim.Adam(model.parameters(), 0.01, betas=(0.7, 0.9))
steps = -(-len(images) // 192)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps, pct_start=31 / steps, cycle_momentum=False)
for rows in torch.randperm(len(images)).split(192):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images[rows]), targets[rows], label_smoothing=0.1).backward()
    optimizer.step()
    schedule.step()

pixels, labels = read("t10k")
with torch.inference_mode():
    found = torch.cat([model(batch).argmax(1) for batch in torch.from_numpy(normalized(pixels)).unsqueeze(1).split(1000)])
print(f"test {100 * (found.numpy() == labels).mean():.2f}%")
