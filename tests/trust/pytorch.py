"""Random networks and settings train like PyTorch: 20 steps from the same weights end in the same weights and losses.

PyTorch computes each training twice, in 32 and in 64 bits. The distance between its two results tells how much rounding
alone changes a result; the trainer may be a few times as far from the 64-bit result, and no further.

Some trainings amplify rounding: Adam divides a gradient that is almost 0 by its size, and a unit may pass the threshold
of its ReLU, or not. Rounding may happen to hit the trainer and not PyTorch. So an outlier is accepted if PyTorch's own
result in 64 bits changes as much by noise of the size of rounding in 32 bits, in weights and gradients.
"""

import csv
import json
import math
import shutil
import struct
import tomllib

import torch
import torch.nn.functional as F

from burnpack import read_checkpoint, read_tensors, with_tensors, write_checkpoint
from shuffle import permutation
from support import random_of, require, write_idx_folder

COUNT = 200
STEPS = 20
SIDE = 12
CLASSES = 4
IMAGES = 120
# The trainer merges smaller last batches into the one before under batch normalization.
MIN_NORMALIZED_IMAGES = 8

# Accepted distance between the weights: this, or this many times that of PyTorch in 32 bits.
# A distance is the length of the difference as a fraction of the length of the update of all steps.
MAX_DISTANCE = 1e-4
MAX_FACTOR = 10
# Noise in the weights and gradients of an outlier, as a fraction of the largest number of a tensor: rounding in 32 bits
# is 6e-8 in each of many sums, and batch normalization divides by small deviations. And the number of trainings with
# such noise.
NOISE = 1e-6
NOISY_TRAININGS = 20
# Accepted relative difference of the mean training loss of an epoch.
MAX_LOSS_DISTANCE = 1e-4


def prepare(work):
    torch.set_num_threads(1)
    work.data = write_idx_folder(work.folder / "idx", 1, train=IMAGES, test=8, side=SIDE, classes=CLASSES)
    work.images = torch.frombuffer(bytearray((work.data / "train-images-idx3-ubyte").read_bytes()[16:]),
                                   dtype=torch.uint8).reshape(IMAGES, 1, SIDE, SIDE)
    work.labels = torch.frombuffer(bytearray((work.data / "train-labels-idx1-ubyte").read_bytes()[8:]),
                                   dtype=torch.uint8).long()
    # The optimizer of a training before its first step.
    work.run("--preset", "tiny", "--data", "idx", "--max-steps", "1", "--run-name", "first", "-q").success()
    work.distances = []
    work.outliers = []
    return work


def case(work, seed):
    """Trains a random network with random settings, in the trainer and in PyTorch."""
    rng = random_of(seed)
    settings = random_settings(rng, seed)
    torch.manual_seed(seed)
    weights = Network(settings["model"]).state_dict()
    name = f"torch-{seed}"
    config = work.folder / f"{name}.toml"
    config.write_text(toml(settings))
    if any(block["norm"] for block in settings["model"]["blocks"]):
        begin_with_checkpoint(work, name, config, weights)
    else:
        begin_with_import(work, name, config, weights)
    work.run("--resume", name, "--max-steps", STEPS, "-q").success()

    measured = tomllib.loads((work.run_folder(name) / "config.toml").read_text())["images"]
    found, losses = trained(work, name, settings["training"]["ema_decay"])
    exact, exact_losses = train(work, settings, measured, weights, torch.float64)
    rounded, rounded_losses = train(work, settings, measured, weights, torch.float32)
    start = by_trainer_name(weights)
    distances = {
        "weights": distance(found, exact, start),
        "weights of PyTorch in 32 bits": distance(rounded, exact, start),
        "largest weight": largest_distance(found, exact, start),
        "losses": loss_distance(losses, exact_losses),
        "losses of PyTorch in 32 bits": loss_distance(rounded_losses, exact_losses),
    }
    work.distances.append((seed, distances))
    text = ", ".join(f"{what} {value:.1e}" for what, value in distances.items())
    limits = [max(MAX_DISTANCE, MAX_FACTOR * distances["weights of PyTorch in 32 bits"]),
              max(MAX_LOSS_DISTANCE, MAX_FACTOR * distances["losses of PyTorch in 32 bits"])]
    if distances["weights"] > limits[0] or distances["losses"] > limits[1]:
        noisy = [train(work, settings, measured, weights, torch.float64, NOISE) for _ in range(NOISY_TRAININGS)]
        noise = [max(distance(other, exact, start) for other, _ in noisy),
                 max(loss_distance(other, exact_losses) for _, other in noisy)]
        work.outliers.append((seed, distances["weights"], noise[0]))
        limits = [max(limit, MAX_FACTOR * noise) for limit, noise in zip(limits, noise)]
    require(distances["weights"] <= limits[0] and distances["losses"] <= limits[1],
            f"other results than PyTorch, accepted {limits}: {text}\n{config.read_text()}")
    shutil.rmtree(work.run_folder(name))
    return {"networks": 1, settings["training"]["optimizer"]: 1, settings["training"]["schedule"]: 1}


def summary(work):
    """Prints the distribution of the distances, and the outliers."""
    for what in work.distances[0][1]:
        values = sorted(distances[what] for _, distances in work.distances)
        at = {f"{percent}%": values[min(len(values) - 1, len(values) * percent // 100)] for percent in (50, 90, 99)}
        text = ", ".join(f"{percent} below {value:.1e}" for percent, value in at.items())
        print(f"pytorch: distance of {what}: {text}, largest {values[-1]:.1e}")
    for seed, found, noise in work.outliers:
        print(f"pytorch: outlier, seed {seed}: {found:.1e}; noise moves PyTorch's result by {noise:.1e}")


# Settings.


def random_settings(rng, seed):
    """Returns the settings of a network that fits the images, and of its training."""
    batch_size = rng.choice((8, 9, 16, 30))
    accumulate = rng.choice((1, 1, 2, 3))
    validation = rng.choice((0.0, 0.25))
    model = random_model(rng)
    optimizer = rng.choice(("adam", "adamw", "sgd"))
    schedules = ["constant", "cosine", "one-cycle", "step"]
    # Its validation loss would need the batch-norm statistics that the trainer estimates for evaluation.
    if validation and not any(block["norm"] for block in model["blocks"]):
        schedules += ["plateau", "plateau"]
    training = {
        "epochs": 50,
        "max_steps": STEPS,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "optimizer": optimizer,
        "learning_rate": rng.choice((0.001, 0.003, 0.01)) * (5 if optimizer == "sgd" else 1),
        "schedule": rng.choice(schedules),
        "warmup_steps": rng.choice((0, 0, 5)),
        "decay": rng.choice((0.1, 0.5)),
        "decay_epochs": rng.choice((1, 2)),
        "label_smoothing": rng.choice((0.0, 0.1)),
        "ema_decay": rng.choice((0.0, 0.0, 0.9)),
        "seed": seed,
        "report_train": False,
    }
    if rng.random() < 0.5:
        training["weight_decay"] = rng.choice((0.0, 0.001, 0.05))
    if rng.random() < 0.4:
        training["gradient_clip"] = rng.choice((0.1, 1.0))
    if optimizer != "sgd":
        training |= {"beta1": rng.choice((0.9, 0.8)), "beta2": rng.choice((0.999, 0.95))}
    data = {"normalization": rng.choice(("unit", "half", "mean-std")), "validation": validation,
            "validation_split": "last"}
    return {"data": data, "model": model, "training": training}


def random_model(rng):
    blocks = []
    side = SIDE
    for _ in range(rng.randrange(4)):
        kernel = rng.choice((1, 2, 3, 5))
        padding = rng.randrange(kernel)
        after = side + 2 * padding - kernel + 1
        pool = after >= 2 and rng.random() < 0.6
        if after < 1:
            continue
        side = after // 2 if pool else after
        blocks.append({"channels": rng.choice((1, 3, 8)), "kernel": kernel, "padding": padding, "pool": pool,
                       "norm": rng.random() < 0.3})
    dense = [rng.choice((5, 16)) for _ in range(rng.randrange(3))]
    return {"blocks": blocks, "dense": dense, "initialization": "pytorch"}


def toml(settings):
    lines = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {toml_value(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def toml_value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)


# The trainer's side.


def begin_with_import(work, name, config, weights):
    """Begins a run with weights of PyTorch, as users do."""
    path = work.folder / f"{name}.safetensors"
    path.write_bytes(safetensors(weights))
    work.run("import", path, "--config", config, "--data", work.data, "--run-name", name, "-q").success()


def safetensors(weights):
    header, data = {}, b""
    for tensor_name, tensor in weights.items():
        numbers = tensor.flatten().tolist()
        begin = len(data)
        data += struct.pack(f"<{len(numbers)}f", *numbers)
        header[tensor_name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, len(data)]}
    header = json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def begin_with_checkpoint(work, name, config, weights):
    """Begins a run with batch normalization, which `import` folds into the weights: in its checkpoint after the first
    step, replaces step, weights and optimizer."""
    work.run("--config", config, "--data", work.data, "--run-name", name, "--max-steps", "1", "-q").success()
    path = work.checkpoints(name)[-1]
    header, records = read_checkpoint(path)
    _, first = read_checkpoint(first_checkpoint(work))
    header["position"] = {"steps": 0, "epochs": [], "batches": 0, "counted": {
        part: {"loss": 0.0, "correct": 0, "images": 0} for part in ("epoch", "running")}, "seconds": 0.0}
    numbers = by_trainer_name(weights)
    records["model"] = with_tensors(records["model"], numbers)
    records["optimizer"] = first["optimizer"]
    records["best"] = b""
    if records["average"]:
        records["average"] = with_tensors(records["average"], numbers)
    write_checkpoint(path.with_name("step-00000000.checkpoint"), header, records)
    path.unlink()


def first_checkpoint(work):
    """Returns a checkpoint before the first step, whose optimizer has no state."""
    path = work.folder / "first.safetensors"
    if not path.exists():
        network = Network({"blocks": [], "dense": []})
        path.write_bytes(safetensors(network.state_dict()))
        work.run("import", path, "--preset", "dense", "--data", work.data, "--run-name", "imported", "-q",
                 "--config", write(work.folder / "first.toml", "[model]\nblocks = []\ndense = []\n")).success()
    return work.checkpoints("imported")[0]


def write(path, text):
    path.write_text(text)
    return path


def by_trainer_name(weights):
    """Returns the numbers of PyTorch's weights by the names and in the layout of the trainer's records."""
    dense = [key.removesuffix(".weight") for key in weights if key.startswith("fc") and key.endswith(".weight")]
    numbers = {}
    for key, tensor in weights.items():
        layer, kind = key.split(".")
        if layer.startswith("conv"):
            numbers[f"blocks.{int(layer[4:]) - 1}.conv.{kind}"] = tensor.flatten().tolist()
            continue
        # The trainer's dense weights are [in, out].
        values = tensor.T if kind == "weight" else tensor
        place = dense.index(layer)
        target = "output" if place == len(dense) - 1 else f"hidden.{place}"
        numbers[f"{target}.{kind}"] = values.flatten().tolist()
    return numbers


def trained(work, name, ema_decay):
    """Returns the weights of a run in PyTorch's layout, and the training losses of its epochs."""
    _, records = read_checkpoint(work.checkpoints(name)[-1])
    record = records["average" if ema_decay else "model"]
    with open(work.run_folder(name) / "metrics.csv", encoding="utf-8") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    return read_tensors(record), losses


# PyTorch's side.


class Network(torch.nn.Module):
    """The trainer's network. Its batch normalization has no scale, precedes ReLU, and follows the pool."""

    def __init__(self, model):
        super().__init__()
        self.blocks = model["blocks"]
        channels, side = 1, SIDE
        for number, block in enumerate(self.blocks, 1):
            self.add_module(f"conv{number}", torch.nn.Conv2d(channels, block["channels"], block["kernel"],
                                                             padding=block["padding"]))
            side = side + 2 * block["padding"] - block["kernel"] + 1
            side = side // 2 if block["pool"] else side
            channels = block["channels"]
        sizes = [channels * side * side, *model["dense"], CLASSES]
        self.dense = len(sizes) - 1
        for number in range(self.dense):
            self.add_module(f"fc{number + 1}", torch.nn.Linear(sizes[number], sizes[number + 1]))

    def forward(self, images):
        for number, block in enumerate(self.blocks, 1):
            conv = getattr(self, f"conv{number}")
            if block["norm"]:
                maps = F.conv2d(images, conv.weight, padding=conv.padding)
                maps = F.max_pool2d(maps, 2) if block["pool"] else maps
                images = F.relu(F.batch_norm(maps, None, None, bias=conv.bias, training=True, eps=1e-5))
            else:
                maps = F.relu(conv(images))
                images = F.max_pool2d(maps, 2) if block["pool"] else maps
        images = images.flatten(1)
        for number in range(1, self.dense + 1):
            images = getattr(self, f"fc{number}")(images)
            images = F.relu(images) if number < self.dense else images
        return images


def train(work, settings, measured, weights, dtype, noise=0):
    """Trains in PyTorch, and returns the weights by the trainer's names and the training losses of the epochs."""
    data, training = settings["data"], settings["training"]
    network = Network(settings["model"]).to(dtype)
    network.load_state_dict(weights)
    mean, std = {"unit": (0, 1), "half": (0.5, 0.5), "mean-std": (measured["mean"], measured["std"])}[
        data["normalization"]]
    images = (work.images.to(dtype) / 255 - mean) / std
    count = int(IMAGES * (1 - data["validation"]))
    sizes = batch_sizes(settings, count)
    accumulate = training["accumulate"]
    optimizer = make_optimizer(training, network)
    rates = LearningRates(training, optimizer)
    average = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    losses, step, epoch = [], 0, 0
    while step < STEPS:
        epoch += 1
        order = torch.tensor(permutation(count, training["seed"], epoch))
        total, seen = 0.0, 0
        batches = order.split(sizes)
        for begin in range(0, len(batches), accumulate):
            if step == STEPS:
                break
            parts = batches[begin : begin + accumulate]
            images_of_step = sum(map(len, parts))
            rates.set(step)
            optimizer.zero_grad()
            exact = [parameter.detach().clone() for parameter in network.parameters()]
            add_noise(network.parameters(), noise)
            for part in parts:
                loss = F.cross_entropy(network(images[part]), work.labels[part],
                                       label_smoothing=training["label_smoothing"])
                (loss * len(part) / images_of_step).backward()
                total, seen = total + loss.item() * len(part), seen + len(part)
            with torch.no_grad():
                for parameter, before in zip(network.parameters(), exact):
                    parameter.copy_(before)
            add_noise([parameter.grad for parameter in network.parameters()], noise)
            if "gradient_clip" in training:
                torch.nn.utils.clip_grad_norm_(network.parameters(), training["gradient_clip"])
            optimizer.step()
            step += 1
            decay = min(training["ema_decay"], (1 + step) / (10 + step))
            for key, tensor in network.state_dict().items():
                average[key] = decay * average[key] + (1 - decay) * tensor
        losses.append(total / seen)
        with torch.no_grad():
            rest = images[count:]
            validation = F.cross_entropy(network_of(settings, average)(rest), work.labels[count:]) if len(rest) else 0
        rates.end_epoch(float(validation))
    return by_trainer_name(average), losses


def batch_sizes(settings, count):
    """Returns the sizes of the batches of an epoch. A last batch that is too small for batch normalization joins the
    one before it."""
    batch = settings["training"]["batch_size"]
    full, rest = divmod(count, batch)
    sizes = [batch] * full + [rest] * (rest > 0)
    if full and 0 < rest < MIN_NORMALIZED_IMAGES and any(block["norm"] for block in settings["model"]["blocks"]):
        sizes[-2:] = [batch + rest]
    return sizes


def add_noise(tensors, noise):
    with torch.no_grad():
        for tensor in tensors:
            tensor += noise * tensor.abs().max() * torch.randn_like(tensor)


def network_of(settings, weights):
    network = Network(settings["model"]).to(next(iter(weights.values())).dtype)
    network.load_state_dict(weights)
    return network


def make_optimizer(training, network):
    rate, decay = training["learning_rate"], training.get("weight_decay")
    betas = (training.get("beta1", 0.9), training.get("beta2", 0.999))
    match training["optimizer"]:
        case "adam":
            return torch.optim.Adam(network.parameters(), rate, betas, weight_decay=decay or 0)
        case "adamw":
            return torch.optim.AdamW(network.parameters(), rate, betas, weight_decay=0.01 if decay is None else decay)
        case _:
            return torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=decay or 0)


class LearningRates:
    """The schedule: PyTorch's own where it has one, after a linear warmup."""

    def __init__(self, training, optimizer):
        self.training = training
        self.optimizer = optimizer
        self.epochs = 0
        highest, warmup, total = training["learning_rate"], training["warmup_steps"], STEPS
        # PyTorch's schedules work on an optimizer of their own.
        self.inner = torch.optim.SGD([torch.zeros(1, requires_grad=True)], highest)
        schedules = torch.optim.lr_scheduler
        match training["schedule"]:
            case "cosine":
                self.schedule = schedules.CosineAnnealingLR(self.inner, total - warmup)
            case "one-cycle":
                # Its warmup replaces the rise of 30% of the steps; PyTorch counts the step before the highest rate.
                fraction = (warmup + 1) / total if warmup else 0.3
                self.schedule = schedules.OneCycleLR(self.inner, highest, total, pct_start=fraction,
                                                     cycle_momentum=False)
            case "step":
                self.schedule = schedules.StepLR(self.inner, training["decay_epochs"], training["decay"])
            case "plateau":
                self.schedule = schedules.ReduceLROnPlateau(self.inner, factor=training["decay"],
                                                            patience=training["decay_epochs"] - 1, threshold=0,
                                                            eps=0)
            case _:
                self.schedule = None

    def set(self, step):
        """Sets the learning rate of a step."""
        highest, warmup = self.training["learning_rate"], self.training["warmup_steps"]
        is_one_cycle = self.training["schedule"] == "one-cycle"
        rate = self.inner.param_groups[0]["lr"]
        if step < warmup and not is_one_cycle:
            rate = highest * (step + 1) / warmup
        elif self.training["schedule"] in ("cosine", "one-cycle") and step + 1 < STEPS:
            self.inner.step()
            self.schedule.step()
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def end_epoch(self, validation_loss):
        self.inner.step()
        if self.training["schedule"] == "step":
            self.schedule.step()
        elif self.training["schedule"] == "plateau":
            self.schedule.step(validation_loss)


# Distances.


def in_order(numbers):
    return [number for name in sorted(numbers) for number in numbers[name]]


def distance(found, exact, start):
    """Returns the length of the difference as a fraction of the length of the update."""
    found, exact, start = in_order(found), in_order(exact), in_order(start)
    require(len(found) == len(exact), "other number of weights than PyTorch")
    update = math.dist(exact, start)
    return math.dist(found, exact) / update


def largest_distance(found, exact, start):
    """Returns the largest difference of a weight as a fraction of the largest update of a weight."""
    found, exact, start = in_order(found), in_order(exact), in_order(start)
    return max(abs(a - b) for a, b in zip(found, exact)) / max(abs(a - b) for a, b in zip(exact, start))


def loss_distance(found, exact):
    require(len(found) == len(exact), f"{len(found)} epochs, in PyTorch {len(exact)}")
    return max(abs(a - b) / max(b, 0.1) for a, b in zip(found, exact))
