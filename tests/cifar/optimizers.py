"""Trains a small network in PyTorch and prints every eighth parameter: the expected values of the test
`optimizers_match_pytorch` in crates/trainer/src/training/step.rs."""
import torch
import torch.nn.functional as F
from torch import nn

STEPS, LOOKAHEAD, MOMENTUM, DECAY, BIAS_FACTOR, HEAD_FACTOR = 12, 5, 0.85, 0.01, 8, 0.5


def waves(count, scale, phase):
    return scale * torch.sin(1.7 * torch.arange(count, dtype=torch.float64) + phase).float()


def network():
    """Returns a network whose parameters are a wave, with the weights of dense layers transposed as in Burn."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    values = waves(sum(weight.numel() for weight in model.parameters()), 0.3, 0)
    for weight in model.parameters():
        part, values = values[:weight.numel()], values[weight.numel():]
        with torch.no_grad():
            weight.copy_(part.reshape(weight.shape[::-1]).T if weight.dim() == 2 else part.reshape(weight.shape))
    return model


def rate(step, steps):
    peak = 0.23 * steps
    return 0.2 + 0.8 * step / peak if step < peak else 1 - 0.93 * (step - peak) / (steps - peak)


class Muon(torch.optim.Optimizer):
    """Jordan et al. (2024) in 32 bits, on filters as matrices, with decoupled weight decay."""

    def __init__(self, params, lr):
        super().__init__(params, dict(lr=lr))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.mul_(MOMENTUM).add_(weight.grad)
                x = (weight.grad + MOMENTUM * momentum).flatten(1)
                rows, columns = x.shape
                x = x.T if rows > columns else x
                x = x / x.norm()
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                x = x.T if rows > columns else x
                weight.mul_(1 - group["lr"] * DECAY)
                weight.sub_(group["lr"] * max(1, rows / columns) ** 0.5 * x.reshape(weight.shape))


def train(name, highest, average):
    model = network()
    groups = {}
    for path, weight in model.named_parameters():
        factor = (BIAS_FACTOR if weight.dim() == 1 else 1) * (HEAD_FACTOR if path.startswith("7.") else 1)
        groups.setdefault((factor, name == "muon" and weight.dim() == 4), []).append(weight)
    optimizers = []
    for (factor, is_muon), weights in groups.items():
        lr = highest * factor
        optimizers.append(Muon(weights, lr) if is_muon else torch.optim.SGD(
            weights, lr, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY / factor))
    schedules = [torch.optim.lr_scheduler.LambdaLR(it, lambda step: rate(step, STEPS)) for it in optimizers]
    images = waves(6 * 64, 1, 0.5).reshape(6, 1, 8, 8)
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    slow = [weight.detach().clone() for weight in model.parameters()]
    for step in range(1, STEPS + 1):
        model.zero_grad()
        F.cross_entropy(model(images), targets, label_smoothing=0.2).backward()
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            schedule.step()
        if average and step % LOOKAHEAD == 0:
            with torch.no_grad():
                for mean, weight in zip(slow, model.parameters()):
                    weight.copy_(mean.lerp_(weight, 1 - 0.95 ** LOOKAHEAD * (step / STEPS) ** 3))
    result = slow if average else [weight.detach() for weight in model.parameters()]
    values = torch.cat([(weight.T if weight.dim() == 2 else weight).flatten() for weight in result])
    print(name, ", ".join(f"{value:.5f}" for value in values[::8].tolist()))


train("sgd", 0.2, average=True)
train("muon", 0.05, average=False)
