"""Runs the trust tests; README.md describes them.

    python3 tests/trust/soak.py --binary target/release/trainer --minutes 60
    python3 tests/trust/soak.py --binary target/release/trainer --only kills --seed 17 --count 1
"""

import argparse
import collections
import importlib
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

# A part is a module with `COUNT`, the number of cases; `prepare(work)`, which returns what all cases share;
# and `case(shared, seed)`, which returns counts or raises an error. `summary(shared)` is optional.
PARTS = ("kills", "disk", "files", "server", "concurrency", "pytorch")


# A part ends after this number of failures.
MAX_FAILURES = 20


def main():
    arguments = parse_arguments()
    arguments.binary = arguments.binary.resolve()
    failed = []
    for number, name in enumerate(arguments.only):
        deadline = arguments.deadline(len(arguments.only) - number)
        is_inside = name != "disk" or arguments.in_namespace
        if not (run_part if is_inside else run_in_namespace)(name, arguments, deadline):
            failed.append(name)
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")
    print("all passed")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="the trainer to test")
    parser.add_argument("--minutes", type=float, help="end after this time, whatever the count; parts share it")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS[:-1]),
                        metavar="PART,...", help=f"parts to run: {', '.join(PARTS)} [default: all without pytorch]")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first case")
    parser.add_argument("--count", type=int, help="number of cases of each part [default: its own]")
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.only) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    start = time.monotonic()

    def deadline(parts_left):
        """Gives a part its share of the time that is left."""
        if arguments.minutes is None:
            return None
        left = start + 60 * arguments.minutes - time.monotonic()
        return time.monotonic() + left / parts_left

    arguments.deadline = deadline
    return arguments


def run_in_namespace(name, arguments, deadline):
    """Runs a part that mounts file systems, in a process that may do so and whose mounts nobody else sees."""
    command = ["unshare", "--map-root-user", "--mount", sys.executable, __file__, "--in-namespace",
               "--only", name, "--binary", str(arguments.binary), "--seed", str(arguments.seed)]
    if deadline is not None:
        command += ["--minutes", str((deadline - time.monotonic()) / 60)]
    if arguments.count is not None:
        command += ["--count", str(arguments.count)]
    return subprocess.run(command).returncode == 0


def run_part(name, arguments, deadline):
    """Runs the cases of a part, and prints what they did and how to repeat the first failure."""
    from support import Work

    part = importlib.import_module(name)
    count = arguments.count or part.COUNT
    counts = collections.Counter()
    failed = []
    start = reported = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"trust-{name}-", ignore_cleanup_errors=True) as folder:
        shared = part.prepare(Work(arguments.binary, folder))
        for seed in range(arguments.seed, arguments.seed + count):
            if deadline is not None and time.monotonic() > deadline and counts["cases"] > 0:
                break
            try:
                counts.update(part.case(shared, seed))
            except Exception:
                traceback.print_exc(file=sys.stdout)
                failed.append(seed)
                print(f"{name}: FAILED with seed {seed}", flush=True)
                if len(failed) == MAX_FAILURES:
                    break
            counts["cases"] += 1
            if time.monotonic() > reported + 60:
                reported = time.monotonic()
                print(f"{name}: {text(counts)} so far, {reported - start:.0f} s", flush=True)
        print(f"{name}: {text(counts)}, {len(failed)} failures, {time.monotonic() - start:.0f} s", flush=True)
        try:
            getattr(part, "summary", lambda shared: None)(shared)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            failed.append(arguments.seed)
    if failed:
        print(f"{name}: repeat the first failure with:\n"
              f"  python3 {sys.argv[0]} --binary {arguments.binary} --only {name} --seed {failed[0]} --count 1",
              flush=True)
    return not failed


def text(counts):
    return ", ".join(f"{value} {name}" for name, value in sorted(counts.items()))


if __name__ == "__main__":
    main()
