"""Records the output and the gradients of convolution blocks in PyTorch, for the tests in `conv_block.rs`.

    python pytorch.py > pytorch.json

Inputs are multiples of 1/8, so sums of their products have no rounding errors. Requires torch.
"""
import json

import torch
import torch.nn.functional as F

CASES = [
    # batch, in, height, width, out, kernel, padding, relu, pool
    (2, 3, 7, 6, 5, 3, 1, True, True),
    (2, 1, 8, 9, 4, 5, 2, True, False),
    (1, 2, 6, 6, 3, 2, 0, False, True),
]
torch.manual_seed(0)


def eighths(*shape):
    return torch.randint(-8, 9, shape).float() / 8


def case(batch, channels, height, width, out, kernel, padding, relu, pool):
    images = eighths(batch, channels, height, width).requires_grad_()
    weight = eighths(out, channels, kernel, kernel).requires_grad_()
    bias = eighths(out).requires_grad_()
    output = F.conv2d(images, weight, bias, padding=padding)
    output = F.relu(output) if relu else output
    output = F.max_pool2d(output, 2) if pool else output
    gradient = eighths(*output.shape)
    output.backward(gradient)
    tensors = {
        "images": images, "weight": weight, "bias": bias, "gradient": gradient, "output": output,
        "images_gradient": images.grad, "weight_gradient": weight.grad, "bias_gradient": bias.grad,
    }
    recorded = {
        name: {"shape": list(t.shape), "values": t.detach().flatten().tolist()} for name, t in tensors.items()
    }
    return {"padding": padding, "relu": relu, "pool": pool, **recorded}


print("[" + ",\n".join(json.dumps(case(*sizes)) for sizes in CASES) + "]")
