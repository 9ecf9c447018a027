"""Trainings that are killed and interrupted at random times, and resumed, end with the bits of an undisturbed one."""

import json
import os
import shutil
import signal
import time

from support import SIGNALS, finish, random_of, require, write_idx_folder, write_picture_folder

COUNT = 340
# Disturbances of one training: then it may complete.
MAX_DISTURBANCES = 10

# Networks for images of 12x12 pixels.
SMALL = "model.blocks = [{ channels = 8 }, { channels = 12, kernel = 3 }]\nmodel.dense = [24]\n"
NORM = ("model.blocks = [{ channels = 6, norm = true }, { channels = 8, pool = false, norm = true }]\n"
        "model.dense = [16]\nmodel.dropout = 0.4\n")
SETTINGS = {"small.toml": SMALL, "norm.toml": NORM}

# The kinds of training, each about a second long.
KINDS = {
    "tiny": "--preset tiny --data idx --epochs 12 --checkpoint-every 3",
    "dense": "--preset dense --data idx --epochs 12 --schedule cosine",
    "single-pool": "--preset single-pool --data idx --limit-train 100 --epochs 3 --checkpoint-every 1",
    "convnet": "--config small.toml --data idx --epochs 8 --dropout 0.5 --checkpoint-every 2",
    "best": "--config norm.toml --data idx --epochs 8 --validation 0 --learning-rate 0.004 --schedule one-cycle "
            "--label-smoothing 0.1 --ema-decay 0.9 --rotation 10 --translation 0.08 --scale 0.1 --shear 10 "
            "--elastic 0.02 --checkpoint-every 4",
    "accumulate": "--config small.toml --data idx --epochs 10 --batch-size 16 --accumulate 3 --optimizer sgd "
                  "--learning-rate 0.05 --gradient-clip 0.5 --weight-decay 0.001 --checkpoint-every 1",
    "plateau": "--config norm.toml --data idx --epochs 10 --schedule plateau --decay-epochs 1 --warmup-steps 9 "
               "--report-test",
    "early-stopping": "--preset dense --data idx --epochs 60 --early-stopping 3 --optimizer adamw --schedule step "
                      "--checkpoint-every 7",
    "max-steps": "--preset tiny --data idx --epochs 100 --batch-size 32 --max-steps 83 --checkpoint-every 5 "
                 "--ema-decay 0.95",
    "pictures": "--preset tiny --data pictures --image-size 12 --epochs 10 --flip --erasing 0.3 --batch-size 16 "
                "--checkpoint-every 2",
    "bf16": "--config small.toml --data idx --epochs 6 --precision bf16 --checkpoint-every 2",
    "f16": "--config norm.toml --data idx --epochs 4 --precision f16 --validation-split last",
    "two-devices": "--config small.toml --data idx --epochs 6 --device cpu,cpu --checkpoint-every 3",
    "mnist": "--preset tiny --limit-train 1000 --epochs 4 --checkpoint-every 4",
}


def prepare(work):
    """Trains each kind without disturbance."""
    write_idx_folder(work.folder / "idx", 1)
    write_picture_folder(work.folder / "pictures", 1)
    for name, text in SETTINGS.items():
        (work.folder / name).write_text(text)
    references = {}
    for kind, arguments in KINDS.items():
        output = work.run(*arguments.split(), "--run-name", kind, "--quiet").success()
        references[kind] = (work.results(kind), output.seconds)
    longest = max(references, key=lambda kind: references[kind][1])
    print(f"kills: {len(KINDS)} kinds of training; undisturbed, {longest} takes the longest, "
          f"{references[longest][1]:.1f} s", flush=True)
    return work, references


def case(shared, seed):
    """Disturbs one training until it is complete, and compares its result."""
    work, references = shared
    rng = random_of(seed)
    kind = rng.choice(list(KINDS))
    expected, seconds = references[kind]
    name = f"{kind}-{seed}"
    counts = {"trainings": 1, "kills": 0, "signals": 0, "kills before the first checkpoint": 0,
              "kills within a write": 0}
    completed = False
    for _ in range(MAX_DISTURBANCES):
        completed = disturb(work, kind, name, rng, seconds, counts)
        if completed:
            break
    if not completed:
        begin_or_resume(work, kind, name, work.run).success()
    require(work.results(name) == expected, f"{kind}: other results than undisturbed in", work.run_folder(name))
    check_folder(work, name)
    shutil.rmtree(work.run_folder(name))
    return counts


def begin_or_resume(work, kind, name, start):
    """Begins a training, or resumes it if its run folder exists."""
    if (work.run_folder(name) / "config.toml").exists():
        device = ["--device", "cpu,cpu"] if kind == "two-devices" else []
        return start("--resume", name, "--progress", "plain", *device)
    return start(*KINDS[kind].split(), "--run-name", name, "--progress", "plain")


def disturb(work, kind, name, rng, seconds, counts):
    """Starts or resumes a training, disturbs it at a random time, and returns whether it is complete."""
    is_kill = rng.random() < 2 / 3
    number = signal.SIGKILL if is_kill else rng.choice(SIGNALS)
    had_checkpoint = bool(work.checkpoints(name))
    process = begin_or_resume(work, kind, name, work.start)
    # The start of a process, any time of the training, or the write of a file.
    moment = rng.choice(("start", "any", "write"))
    delay = rng.uniform(0, {"start": 0.1, "any": 0.6 * seconds, "write": 0.5 * seconds}[moment])
    time.sleep(delay)
    if moment == "write":
        wait_for_write(work.run_folder(name), limit=seconds)
    # Without `process.poll`, so that a process which has ended keeps its ID until `finish`.
    os.kill(process.pid, number)
    output = finish(process)
    output.command = f"{kind}, disturbed by {number.name} after {delay:.3f} s"
    # A signal ends a process that does not handle it yet.
    accepted = {0, -number} if is_kill else {0, 130, -number}
    require("panicked" not in output.stderr and output.code in accepted, "unexpected end:", output)
    if output.code == 130:
        has_run = (work.run_folder(name) / "config.toml").exists()
        require(not has_run or "resume with: trainer --resume" in output.stderr, "no command to resume:", output)
    if output.code != 0:
        counts["kills" if is_kill else "signals"] += 1
        counts["kills before the first checkpoint"] += is_kill and not had_checkpoint
        counts["kills within a write"] += is_kill and bool(unfinished(work.run_folder(name)))
    return output.code == 0


def unfinished(folder):
    """Returns the temporary files of a run, which are renamed when they are complete."""
    folders = [folder, folder / "checkpoint"]
    return [path for folder in folders if folder.is_dir() for path in folder.glob(".unfinished-*")]


def wait_for_write(folder, limit):
    deadline = time.monotonic() + limit
    while not unfinished(folder) and time.monotonic() < deadline:
        time.sleep(0.0002)


def check_folder(work, name):
    """Checks that a completed run has one event per epoch and no temporary file."""
    folder = work.run_folder(name)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [event["number"] for event in events if event["event"] == "epoch"]
    rows = len((folder / "metrics.csv").read_text().splitlines()) - 1
    require(epochs == list(range(1, rows + 1)), f"event log of {name}: epochs {epochs}, expected {rows}")
    require(events[-1] == {"event": "end", "state": "finished"}, f"event log of {name}: ends with {events[-1]}")
    require(not unfinished(folder), f"{name}: temporary files left: {unfinished(folder)}")

