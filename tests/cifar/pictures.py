"""Reads a folder with a folder of pictures of 32x32 pixels per class."""
import numpy as np
import torch
from PIL import Image


def read(folder):
    """Returns pixels [N, 3, 32, 32] from 0 to 1, and labels."""
    pixels, labels = [], []
    for label, name in enumerate(sorted(path.name for path in folder.iterdir())):
        for path in sorted((folder / name).iterdir()):
            pixels.append(np.asarray(Image.open(path).convert("RGB")))
            labels.append(label)
    return torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)
