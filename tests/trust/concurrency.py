"""Processes that use the same folder of runs at once do not disturb each other: every run has a folder of its own,
one process writes to it, and results are those of a process alone."""

import json
import re
import shutil
import signal
import time
import urllib.request

from support import finish, random_of, require, write_idx_folder, write_picture_folder

COUNT = 120
TRAIN = "--preset tiny --data idx --epochs 8 --checkpoint-every 3 -q".split()
PICTURES = "--preset tiny --data pictures --image-size 12 --epochs 4 -q".split()


def prepare(work):
    """Trains the references."""
    write_idx_folder(work.folder / "idx", 1)
    write_picture_folder(work.folder / "pictures", 1)
    work.run(*TRAIN, "--run-name", "reference").success()
    work.run(*PICTURES, "--run-name", "pictures").success()
    work.expected = {"idx": work.results("reference"), "pictures": work.results("pictures")}
    return work


def case(work, seed):
    """Runs a scenario in a folder of its own."""
    rng = random_of(seed)
    scenario = rng.choice(SCENARIOS)
    folder = work.sub(scenario.__name__)
    folder.expected = work.expected
    for name in ("idx", "pictures"):
        (folder.folder / name).symlink_to(work.folder / name)
    processes = scenario(folder, rng)
    shutil.rmtree(folder.folder)
    return {"processes": processes, f"cases of {scenario.__name__.replace('_', ' ')}": 1}


def start_all(work, count, rng, *arguments):
    """Starts processes at almost the same time."""
    processes = []
    for _ in range(count):
        processes.append(work.start(*arguments))
        time.sleep(rng.choice((0, 0, 0.005, 0.05)))
    return processes


def finish_all(processes):
    return [finish(process).checked() for process in processes]


def check_run(work, name, kind="idx"):
    require(work.results(name) == work.expected[kind], "other results than alone:", work.run_folder(name))


def run_names(work):
    return sorted(path.name for path in (work.folder / "artifacts/runs").iterdir() if not path.name.startswith("."))


def same_preset(work, rng):
    """Trainings without a name get folders with different numbers."""
    count = rng.randrange(2, 6)
    for output in finish_all(start_all(work, count, rng, *TRAIN)):
        output.success()
    require(run_names(work) == [f"tiny-{number}" for number in range(1, count + 1)], "runs", run_names(work))
    for name in run_names(work):
        check_run(work, name)
    return count


def same_name(work, rng):
    """Of trainings with the same name, exactly one begins."""
    count = rng.randrange(2, 6)
    outputs = finish_all(start_all(work, count, rng, *TRAIN, "--run-name", "r"))
    winners = [output for output in outputs if output.code == 0]
    require(len(winners) == 1, f"{len(winners)} of {count} trainings began:", *outputs)
    for output in outputs:
        if output.code != 0:
            require("this run exists already; choose another --run-name" in output.error(), output)
    require(run_names(work) == ["r"], "runs", run_names(work))
    check_run(work, "r")
    return count


def killed(work, rng):
    """Begins a run `r`, and kills it after its first checkpoint."""
    process = work.start(*TRAIN, "--run-name", "r")
    deadline = time.monotonic() + 20
    while not work.checkpoints("r") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02))
    process.send_signal(signal.SIGKILL)
    process.communicate()


def same_resume(work, rng):
    """Of processes that resume the same run, one at a time has it."""
    killed(work, rng)
    count = rng.randrange(2, 6)
    outputs = finish_all(start_all(work, count, rng, "--resume", "r", "-q"))
    require(any(output.code == 0 for output in outputs), "nobody resumed the run:", *outputs)
    for output in outputs:
        if output.code != 0:
            require("is writing to it" in output.error(), output)
    check_run(work, "r")
    return count


def evaluate_while_training(work, rng):
    """Readers of a run that is being trained see a whole state of it or none, and do not disturb it."""
    training = work.start(*TRAIN, "--run-name", "r")
    picture = work.folder / "pictures" / "class0" / "0.png"
    commands = (("evaluate", "r"), ("predict", "r", picture), ("compare", "r", "pretrained"), ("report", "r"), ("export", "r", "--format", "onnx"),
                ("inspect", "r"))
    processes = 1
    while training.poll() is None:
        outputs = finish_all(start_all(work, 2, rng, *rng.choice(commands), "-q"))
        processes += len(outputs)
        for output in outputs:
            if output.code != 0:
                message = output.error()
                require(re.search("no weights yet|no run folder|no epoch|no completed epoch|not evaluated", message),
                        output)
    require(training.returncode == 0, "training:", training.stderr.read())
    training.communicate()
    check_run(work, "r")
    return processes


def serve_while_training(work, rng):
    """The server shows a run that is being trained."""
    server = work.start("serve", "pretrained", "--listen", "127.0.0.1:0", "-q")
    address = re.search(r"http://[\d.:]+", server.stdout.readline().decode())[0]
    training = work.start(*TRAIN, "--run-name", "r")
    try:
        while training.poll() is None:
            runs = get(f"{address}/api/runs")
            if any(run["id"] == "r" for run in runs):
                for path in ("r", "r/metrics"):
                    get(f"{address}/api/runs/{path}")
        training.communicate()
        require(training.returncode == 0, "training failed")
        run = next(run for run in get(f"{address}/api/runs") if run["id"] == "r")
        require(run["state"] == "finished" and run["epochs"] == 8, "state of the run:", run)
        check_run(work, "r")
    finally:
        server.send_signal(signal.SIGINT)
        output = finish(server)
    output.checked().success()
    return 2


def get(url):
    with urllib.request.urlopen(url, timeout=20) as response:
        return json.load(response)


def same_picture_cache(work, rng):
    """Trainings on the same pictures write the same cache."""
    count = rng.randrange(2, 5)
    for output in finish_all(start_all(work, count, rng, *PICTURES)):
        output.success()
    for number in range(1, count + 1):
        check_run(work, f"tiny-{number}", "pictures")
    work.run(*PICTURES, "--run-name", "cached").success()
    check_run(work, "cached", "pictures")
    return count + 1


SCENARIOS = (same_preset, same_name, same_resume, evaluate_while_training, serve_while_training, same_picture_cache)
