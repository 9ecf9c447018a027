"""A disk that is full, read-only or failing ends a training with one message, and loses no checkpoint: once the disk
works, the training resumes to the bits of an undisturbed one.

`soak.py` runs this part in a mount namespace of its own, where it may mount file systems in memory.
"""

import resource
import shutil
import signal
import subprocess
import time

import kills
from support import Work, finish, random_of, require, write_idx_folder, write_picture_folder

COUNT = 200
# The kinds of training, of those of `kills`.
KINDS = ("tiny", "best", "accumulate", "max-steps", "pictures")
# Larger than all files of a run, in bytes.
LARGE = 64 << 20

# System calls that strace lets fail, with the largest number of the call that fails.
WRITING_CALLS = {"write": 200, "fsync": 25, "rename": 25, "mkdir": 4, "unlink": 20, "ftruncate": 4, "flock": 2}
READING_CALLS = {"openat": 150, "read": 120, "getdents64": 10}
STARTUP_FAILURE = "error while loading shared libraries"


def prepare(work):
    """Mounts a file system in memory, and trains each kind on it without disturbance."""
    write_idx_folder(work.folder / "idx", 1)
    write_picture_folder(work.folder / "pictures", 1)
    disk = Disk(work)
    disk.mount(LARGE)
    disk.references = {}
    for kind in KINDS:
        disk.clear()
        disk.work.run(*kills.KINDS[kind].split(), "--run-name", kind, "--quiet").success()
        disk.references[kind] = disk.work.results(kind), disk.used()
    if not shutil.which("strace"):
        print("disk: SKIPPED failing system calls: strace is missing; apt-get install strace", flush=True)
        SCENARIOS.remove(failing_calls)
    return disk


def summary(disk):
    command(["umount", "--lazy", str(disk.folder)])


class Disk:
    """A file system in memory, with links to the data sets, that trainings write their runs to."""

    def __init__(self, work):
        self.sources = work.folder
        self.folder = work.folder / "disk"
        self.folder.mkdir()
        self.work = Work(work.program, self.folder)

    def mount(self, size):
        command(["mount", "-t", "tmpfs", "-o", f"size={size}", "disk", str(self.folder)])
        for name in ("idx", "pictures", *kills.SETTINGS):
            (self.folder / name).symlink_to(self.sources / name)
        for name, text in kills.SETTINGS.items():
            (self.sources / name).write_text(text)

    def remount(self, options):
        command(["mount", "-o", f"remount,{options}", str(self.folder)])

    def clear(self):
        shutil.rmtree(self.folder / "artifacts", ignore_errors=True)

    def used(self):
        return shutil.disk_usage(self.folder).used


def command(arguments):
    result = subprocess.run(arguments, capture_output=True, text=True)
    require(result.returncode == 0, " ".join(arguments), "failed:", result.stderr)


def case(disk, seed):
    """Trains with a defect of the disk, several times, then without it, and compares the result."""
    rng = random_of(seed)
    disk.remount(f"rw,size={LARGE}")
    disk.clear()
    kind = rng.choice(KINDS)
    scenario = rng.choice(SCENARIOS)
    expected, used = disk.references[kind]
    counts = {"trainings": 1, "failures with one message": 0}
    for _ in range(rng.randrange(1, 5)):
        before = newest(disk, kind)
        outputs = scenario(disk, kind, used, rng)
        disk.remount(f"rw,size={LARGE}")
        for output in outputs:
            counts["failures with one message"] += output.code == 1
        require(newest(disk, kind) >= before, f"{kind}, {scenario.__name__}: lost checkpoint {before}:", *outputs)
        if outputs and outputs[-1].code == 0:
            break
    output = begin_or_resume(disk, kind)
    require(output.code == 0, f"{kind}, {scenario.__name__}: cannot resume:", output, *outputs)
    require(disk.work.results(kind) == expected, f"{kind}, {scenario.__name__}: other results than undisturbed:", *outputs)
    return counts | {f"trainings ({scenario.__name__.replace('_', ' ')})": 1}


def newest(disk, kind):
    """Returns the number of steps of the newest checkpoint, or -1."""
    checkpoints = disk.work.checkpoints(kind)
    return int(checkpoints[-1].stem.removeprefix("step-")) if checkpoints else -1


def begin_or_resume(disk, kind, **options):
    return kills.begin_or_resume(disk.work, kind, kind, lambda *arguments: disk.work.run(*arguments, **options))


def one_message(output):
    """Checks that a training failed with one message, or completed."""
    if output.code != 0:
        output.error()
    return output


# Each scenario returns the outputs of its trainings.


def full_disk(disk, kind, used, rng):
    """The disk has room for a part of the run."""
    size = int(used * rng.uniform(0.02, 1.05)) + disk.used() * rng.choice((0, 1))
    # The size is a number of pages, and may be below what is in use: then nothing can be written.
    disk.remount(f"size={max(size, disk.used())}")
    return [one_message(begin_or_resume(disk, kind))]


def small_files(disk, kind, used, rng):
    """No file may become larger than a limit, as with a quota."""
    limit = int(used * rng.uniform(0.001, 0.4))

    def set_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # Rust's runtime leaves the ignored signal alone.
    return [one_message(begin_or_resume(disk, kind, preexec_fn=set_limit))]


def read_only(disk, kind, used, rng):
    """The disk becomes read-only after a training was killed."""
    process = kills.begin_or_resume(disk.work, kind, kind, disk.work.start)
    time.sleep(rng.uniform(0, 0.5))
    process.kill()
    process.communicate()
    disk.remount("ro")
    output = begin_or_resume(disk, kind)
    output.error()
    return [output]


def failing_calls(disk, kind, used, rng):
    """A system call fails once, or always after that."""
    # A picture that cannot be read is left out, with a warning, which is another training.
    calls = WRITING_CALLS if kind == "pictures" else WRITING_CALLS | READING_CALLS
    call = rng.choice(list(calls))
    number = rng.randrange(1, calls[call])
    error = rng.choice(("EIO", "ENOSPC"))
    always = rng.choice(("", "+"))
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
              f"inject={call}:error={error}:when={number}{always}"]
    process = kills.begin_or_resume(disk.work, kind, kind, lambda *arguments: disk.work.start(*arguments, under=strace))
    output = finish(process)
    output.command = f"{' '.join(strace[5:])}, {kind}"
    if STARTUP_FAILURE in output.stderr:
        return []
    require("panicked" not in output.stderr and output.code in (0, 1), "expected success or exit code 1:", output)
    # A message cannot be written if writing fails.
    if call != "write" and output.code == 1:
        output.error()
    return [output]


SCENARIOS = [full_disk, small_files, read_only, failing_calls]
