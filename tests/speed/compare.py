"""Compares the speed of the trainer with that of PyTorch, Keras on TensorFlow, and ONNX Runtime on the CPU:

    cargo build -p trainer
    python tests/speed/compare.py [--threads 1] [--networks convnet,vgg,resnet9] [--rounds 5]

Prints a Markdown table per network: images per second, and the ratio of the trainer's rate to that of the best peer,
in 32 bits and in any precision. All programs take turns, several rounds, each in a process that is stopped between
its turns; the results are medians. The trainer is measured by `trainer bench`, which includes its loader with the
preset's augmentation; peers get normalized batches from memory. Peers that are not installed are skipped. If they are
not all in one environment, --python names the interpreters of several.

Needs Linux. The peers' packages are torch, keras with tensorflow, and onnxruntime with onnx.
"""
import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parent / "trust"))
from support import write_picture_folder

# Batch sizes.
TRAIN = {"convnet": [64, 512], "vgg": [64, 256], "resnet9": [64, 256]}
INFERENCE = {"convnet": [1, 64, 1000], "vgg": [1, 64], "resnet9": [1, 64]}


class Failed(Exception):
    """A program that ended or printed no result."""


class Trainer:
    name, bits = "trainer", 32

    def __init__(self, binary, network, runs):
        self.binary, self.network, self.runs = binary, network, runs

    def turn(self, works):
        """Returns images per second by work."""
        batches = {kind: ",".join(str(batch) for other, batch in works if other == kind) for kind, _ in works}
        command = [self.binary, "bench", "-q", "--json", "--device", "cpu", "--preset", self.network,
                   "--runs", str(self.runs), "--train", batches["train"], "--inference", batches["inference"]]
        report = json.loads(run(command))
        return {(kind, speed["batch"]): speed["images_per_second"] for kind in batches for speed in report[kind]}

    def end(self):
        pass


class Peer:
    """A variant of a peer, in a process of its own that answers requests; see peer.py."""

    def __init__(self, name, script, variant, modules, bits=32, kinds=("train", "inference")):
        self.name, self.script, self.variant, self.modules = name, script, variant, modules
        self.bits, self.kinds, self.process = bits, kinds, None

    def configure(self, python, network, onnx, options):
        self.command = [python, FOLDER / self.script, network, self.variant, "--threads", str(options.threads),
                        "--seconds", str(options.seconds), "--onnx", onnx]

    def turn(self, works):
        """Returns images per second by work."""
        if self.process:
            self.process.send_signal(signal.SIGCONT)
        else:
            self.errors = tempfile.TemporaryFile("w+")
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        rates = {work: self.ask(*work) for work in works if work[0] in self.kinds}
        # Waiting threads must not use the processor in the turns of others.
        self.process.send_signal(signal.SIGSTOP)
        return rates

    def ask(self, kind, batch):
        try:
            self.process.stdin.write(f"{kind} {batch}\n")
            self.process.stdin.flush()
            return float(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            self.end()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or ["no message"]
            raise Failed(lines[-1]) from None

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()


def peers():
    torch, onnx = ["torch", "numpy"], ["onnxruntime", "onnx", "numpy"]
    inference = ("inference",)
    return [
        Peer("PyTorch", "peer_torch.py", "plain", torch),
        Peer("PyTorch channels-last", "peer_torch.py", "channels-last", torch),
        Peer("PyTorch compiled", "peer_torch.py", "compiled", torch),
        Peer("PyTorch bfloat16", "peer_torch.py", "bfloat16", torch, bits=16),
        Peer("PyTorch compiled bfloat16", "peer_torch.py", "compiled-bfloat16", torch, bits=16),
        Peer("Keras", "peer_keras.py", "plain", ["keras", "tensorflow", "numpy"]),
        Peer("ONNX Runtime", "peer_onnxruntime.py", "f32", onnx, kinds=inference),
        Peer("ONNX Runtime int8", "peer_onnxruntime.py", "int8", onnx, bits=8, kinds=inference),
    ]


def note(*words):
    print(*words, file=sys.stderr, flush=True)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def python_with(modules, pythons):
    """Returns the first interpreter that has the modules, or None."""
    check = "import importlib.util as u, sys; sys.exit(any(u.find_spec(name) is None for name in sys.argv[1:]))"
    for python in pythons:
        if subprocess.run([python, "-c", check, *modules], stderr=subprocess.DEVNULL).returncode == 0:
            return python
    return None


def exported(binary, network, folder):
    """Returns the path of the network as an ONNX file, which the trainer writes."""
    runs = folder / "runs"
    settings = ["--preset", network, "--max-steps", "1", "--batch-size", "8", "--out", runs, "--run-name", network]
    if network != "convnet":
        pictures = folder / "pictures"
        if not pictures.exists():
            write_picture_folder(pictures, seed=1, per_class=8, side=32, classes=10)
        settings += ["--data", pictures]
    run([binary, "-q", *settings])
    path = folder / f"{network}.onnx"
    run([binary, "export", "-q", runs / network, "--format", "onnx", "--to", path])
    return path


def measured(network, works, options, folder):
    """Returns the medians of the images per second, by contestant and work."""
    onnx = exported(options.binary, network, folder)
    contestants = [Trainer(options.binary, network, options.runs)]
    rates = {}
    try:
        for peer in peers():
            python = python_with(peer.modules, options.python)
            if python:
                peer.configure(python, network, onnx, options)
                contestants.append(peer)
            else:
                note(f"skipped: {peer.name}: needs {', '.join(peer.modules)}")
        for number in range(options.rounds):
            # Each round begins with another one, since a program may heat the processor for the next.
            first = number % len(contestants)
            for contestant in contestants[first:] + contestants[:first]:
                note(f"{network}, round {number + 1} of {options.rounds}: {contestant.name}")
                try:
                    for work, rate in contestant.turn(works).items():
                        rates.setdefault(contestant, {}).setdefault(work, []).append(rate)
                except Failed as error:
                    note(f"skipped: {contestant.name}: {error}")
                    contestants.remove(contestant)
                    rates.pop(contestant, None)
    finally:
        for contestant in contestants:
            contestant.end()
    return {contestant: {work: statistics.median(values) for work, values in of_works.items()}
            for contestant, of_works in rates.items()}


def ratios(rates, work):
    """Returns the ratios of the trainer's rate to the best peer's, in 32 bits and in any precision, or None."""
    trainer, *others = rates
    best = [max((rates[peer].get(work, 0) for peer in others if peer.bits >= bits), default=0) for bits in (32, 0)]
    return [rates[trainer][work] / rate if rate else None for rate in best]


def print_table(network, rates, works):
    header = [network, *(contestant.name for contestant in rates), "trainer / best in 32 bits", "trainer / best"]
    print("|", " | ".join(header), "|")
    print("|---" + "|---:" * (len(header) - 1) + "|")
    for work in works:
        cells = [f"{rates[contestant][work]:,.0f}" if work in rates[contestant] else "" for contestant in rates]
        cells += [f"{ratio:.2f}" if ratio else "" for ratio in ratios(rates, work)]
        print(f"| {work[0]} {work[1]} |", " | ".join(cells), "|")
    print(flush=True)


def print_means(found):
    for kind in ("train", "inference"):
        for index, precision in enumerate(["32 bits", "any precision"]):
            values = [ratio[index] for (name, _), ratio in found if name == kind and ratio[index]]
            if values:
                mean = math.exp(statistics.fmean(map(math.log, values)))
                print(f"{kind}, geometric mean of trainer / best in {precision}: {mean:.2f}")


def parsed():
    batches = lambda text: [int(number) for number in text.split(",")]
    available = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=FOLDER.parents[1] / "target/debug/trainer", type=Path)
    parser.add_argument("--python", action="append", help="interpreter with peers; may be given several times")
    parser.add_argument("--threads", type=int, default=available)
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(TRAIN))
    parser.add_argument("--train", type=batches, help="batch sizes of training")
    parser.add_argument("--inference", type=batches, help="batch sizes of inference")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of a peer's measurement")
    parser.add_argument("--runs", type=int, default=3, help="measurements of the trainer in a round")
    options = parser.parse_args()
    options.python = options.python or [sys.executable]
    if not options.binary.is_file():
        parser.error(f"{options.binary}: not found; `cargo build -p trainer` builds it")
    if not 1 <= options.threads <= available:
        parser.error(f"--threads {options.threads}: expected 1 to {available}, the processors of this machine")
    unknown = set(options.networks) - set(TRAIN)
    if unknown:
        parser.error(f"--networks {', '.join(unknown)}: expected some of {', '.join(TRAIN)}")
    return options


def main():
    options = parsed()
    processors = sorted(os.sched_getaffinity(0))[:options.threads]
    # Child processes inherit both.
    os.sched_setaffinity(0, processors)
    os.environ |= {name: str(options.threads) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    found = []
    print(f"Images per second: {options.threads} thread(s), median of {options.rounds} round(s).\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for network in options.networks:
            works = [("train", batch) for batch in options.train or TRAIN[network]]
            works += [("inference", batch) for batch in options.inference or INFERENCE[network]]
            rates = measured(network, works, options, Path(folder))
            print_table(network, rates, works)
            found += [(work, ratios(rates, work)) for work in works]
    print_means(found)


main()
