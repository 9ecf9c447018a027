"""Helpers of all parts: processes of the trainer, generated images, and checks of their results."""

import gzip
import hashlib
import os
import pathlib
import random
import signal
import struct
import subprocess
import tempfile
import threading
import time
import zlib

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# No command of a test takes this long, in seconds.
HANG = 60
# Files that are equal, byte for byte, if two trainings had the same result.
RESULTS = ("model.safetensors", "metrics.csv", "evaluation.json")


class Failure(Exception):
    """A broken promise of the trainer."""


def require(condition, *message):
    if not condition:
        raise Failure(" ".join(map(str, message)))


class Work:
    """A working folder with the program under test."""

    def __init__(self, program, folder):
        self.program = pathlib.Path(program).resolve()
        self.folder = pathlib.Path(folder)
        # Tests do not depend on settings of the user.
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.startswith("TRAINER_") and name != "RUST_BACKTRACE"}

    def sub(self, name):
        """Creates an empty folder in this one, and returns it as a working folder."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        return Work(self.program, folder)

    def start(self, *arguments, under=(), **options):
        """Starts the trainer, possibly under another program, with its output in pipes."""
        command = [*under, str(self.program), *map(str, arguments)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, **options)

    def run(self, *arguments, limit=HANG, **options):
        """Runs the trainer to its end, and checks what holds for every command."""
        start = time.monotonic()
        process = self.start(*arguments, **options)
        output = finish(process, limit)
        output.command = " ".join(map(str, arguments))
        output.seconds = time.monotonic() - start
        return output.checked()

    def run_folder(self, name):
        return self.folder / "artifacts" / "runs" / name

    def results(self, name):
        """Returns the SHA-256 of each file that equal trainings have in common."""
        return {file: sha256(self.run_folder(name) / file) for file in RESULTS}

    def checkpoints(self, name):
        return sorted((self.run_folder(name) / "checkpoint").glob("step-*.checkpoint"))


class Output:
    """The exit code, the output and the memory of a process. The code is -N if signal N ended it."""

    def __init__(self, code, stdout, stderr, megabytes):
        self.code = code
        self.stdout = stdout
        self.stderr = stderr
        self.megabytes = megabytes
        self.command = ""
        self.seconds = 0.0

    def __str__(self):
        return f"`{self.command}` exited with {self.code} and printed:\n{self.stdout[-2000:]}{self.stderr[-4000:]}"

    def checked(self):
        """Checks that the process did not panic."""
        require("panicked" not in self.stderr and self.code in (0, 1, 2, 130), "panic or unknown exit code:", self)
        return self

    def success(self):
        require(self.code == 0, "expected success:", self)
        return self

    def error(self):
        """Checks for exit code 1 and one message, and returns the message."""
        lines = self.stderr.splitlines()
        messages = [line for line in lines if line.startswith("error: ")]
        require(self.code == 1 and len(messages) == 1, "expected one error message:", self)
        return messages[0].removeprefix("error: ")


def finish(process, limit=HANG):
    """Waits for a process started by `Work.start`, and returns its output. Fails if it hangs."""
    pipes = [process.stdout, process.stderr]
    texts = ["", ""]

    def read(at):
        texts[at] = pipes[at].read().decode(errors="replace")

    threads = [threading.Thread(target=read, args=(at,)) for at in range(2) if pipes[at]]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + limit
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        process.kill()
        process.wait()
        raise Failure(f"hangs for more than {limit} s: {' '.join(process.args)}")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    for pipe in filter(None, pipes):
        pipe.close()
    return Output(process.returncode, texts[0], texts[1], usage.ru_maxrss / 1024)


def wait_until(condition, event, limit=HANG):
    deadline = time.monotonic() + limit
    while not condition():
        require(time.monotonic() < deadline, "no", event, "within", limit, "s")
        time.sleep(0.002)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def random_of(seed):
    """Returns a generator for one case; seeds that follow each other give unrelated cases."""
    return random.Random(f"case {seed}")


# Images. Each class has its own pattern, with noise, so that networks learn something and losses are not trivial.


def pixels(rng, label, side, channels=1):
    """Returns the bytes of an image of a class, `[channels, side, side]`."""
    image = bytearray()
    for channel in range(channels):
        for y in range(side):
            for x in range(side):
                on = (x * (label + 1) + y * (label % 3 + 1) + channel) % (label + 3) == 0
                image.append(min(255, max(0, (180 if on else 40) + rng.randrange(-40, 60))))
    return bytes(image)


def idx(magic, sizes, elements):
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes) + elements


def write_idx_folder(folder, seed, train=300, test=60, side=12, classes=4, compress=False):
    """Writes the four IDX files of a data set."""
    rng = random_of(seed)
    folder.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        labels = bytes(at % classes for at in range(count))
        images = b"".join(pixels(rng, label, side) for label in labels)
        for name, data in (
            (f"{prefix}-images-idx3-ubyte", idx(0x803, (count, side, side), images)),
            (f"{prefix}-labels-idx1-ubyte", idx(0x801, (count,), labels)),
        ):
            if compress:
                name, data = f"{name}.gz", gzip.compress(data, mtime=0)
            (folder / name).write_bytes(data)
    return folder


def png(side, data, channels=1):
    """Encodes an image `[channels, side, side]` as PNG."""
    plane = side * side
    rows = b"".join(
        b"\0" + bytes(data[channel * plane + y * side + x] for x in range(side) for channel in range(channels))
        for y in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, content) for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_picture_folder(folder, seed, per_class=30, side=14, classes=3, channels=3):
    """Writes a folder of PNG files, one sub-folder per class."""
    rng = random_of(seed)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for at in range(per_class):
            data = png(side, pixels(rng, label, side, channels), channels)
            (folder / f"class{label}" / f"{at}.png").write_bytes(data)
    return folder


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
