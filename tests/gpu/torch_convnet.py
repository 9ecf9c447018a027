"""Measures the preset `convnet` in PyTorch, with the images on the device.

    python torch_convnet.py DEVICE eager|compiled [f32|bf16|f16]

Prints a row of a Markdown table: images per second of training and of inference with batches of 64, 512 and
4096 images, and the seconds of the first and of a later epoch of 60,000 images with batches of 64. In 16 bits,
the network runs under `autocast`.
"""

import gzip
import pathlib
import sys
import time

import numpy
import torch
from torch import nn

FOLDER = pathlib.Path(__file__).parents[2] / "crates/data/mnist"
BATCHES = [64, 512, 4096]
device, mode = torch.device(sys.argv[1]), sys.argv[2]
precision = sys.argv[3] if len(sys.argv) > 3 else "f32"
autocast = {
    "f32": lambda: torch.autocast(device.type, enabled=False),
    "bf16": lambda: torch.autocast(device.type, torch.bfloat16),
    "f16": lambda: torch.autocast(device.type, torch.float16),
}[precision]


def elements(name, header):
    return numpy.frombuffer(gzip.open(FOLDER / f"{name}.gz").read(), numpy.uint8, offset=header)


pixels = elements("train-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
pixels = torch.from_numpy(pixels.copy()).to(device)
labels = torch.from_numpy(elements("train-labels-idx1-ubyte", 8).copy()).long().to(device)


def images(rows):
    return (pixels[rows].float() / 255 - 0.1307) / 0.3081


def synchronize():
    if device.type == "cuda":
        torch.cuda.synchronize()


def network():
    torch._dynamo.reset()
    layers = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10),
    ).to(device)
    return torch.compile(layers) if mode == "compiled" else layers


def epoch(model, optimizer, batch, steps):
    order = torch.randperm(len(pixels), device=device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "f16")
    synchronize()
    start = time.perf_counter()
    for step in range(steps):
        rows = order[step * batch : (step + 1) * batch]
        optimizer.zero_grad()
        with autocast():
            loss = nn.functional.cross_entropy(model(images(rows)), labels[rows])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    synchronize()
    return time.perf_counter() - start


def median(times):
    return sorted(times)[len(times) // 2]


columns = []
for batch in BATCHES:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    steps = len(pixels) // batch
    first = epoch(model, optimizer, batch, steps)
    later = median([epoch(model, optimizer, batch, steps) for _ in range(3)])
    if batch == BATCHES[0]:
        cold, warm = first, later
    columns.append(f"{steps * batch / later:,.0f}")
for batch in BATCHES:
    model = network().eval()
    inputs = images(torch.arange(batch, device=device))
    with torch.no_grad():
        def rate():
            synchronize()
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < 0.3:
                model(inputs).cpu()
                count += 1
            return count * batch / (time.perf_counter() - start)

        rate()
        columns.append(f"{median([rate() for _ in range(5)]):,.0f}")
columns += [f"{cold:.1f}", f"{warm:.1f}"]
print(f"| PyTorch {torch.__version__}, {mode}, {device} {precision} | " + " | ".join(columns) + " | |")
