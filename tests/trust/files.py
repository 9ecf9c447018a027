"""Damaged files of every format end in a result or in an error message: no panic, no hang, no large allocation."""

import hashlib
import pathlib
import resource
import shutil
import tarfile
import tempfile
import zipfile

from mutation import mutate
from support import REPOSITORY, Failure, random_of, require, write_idx_folder, write_picture_folder

# Each case mutates 100 files, so this makes 50,000.
COUNT = 500
FILES = 100

MAX_SECONDS = 10
MAX_MEGABYTES = 600
# No allocation of a wrong length may disturb the machine.
MAX_ADDRESS_SPACE = 8 << 30

WEIGHTS = [REPOSITORY / "tests/weights" / name for name in (
    "tiny.pt", "tiny-legacy.pth", "tiny-checkpoint.pt", "deep.pt", "tiny.safetensors", "tiny.weights.h5",
    "deep.weights.h5", "tiny-whole.h5", "deep-whole.h5", "tiny.keras")]
PICTURES = (".png", ".jpg", ".bmp", ".gif", ".webp", ".tif", ".ppm", ".pgm", ".pbm", ".qoi", ".tga", ".ico")


def prepare(work):
    """Makes a file of each format, and runs to read them with."""
    write_idx_folder(work.folder / "idx", 1, train=20, test=20, side=28, classes=10)
    write_idx_folder(work.folder / "gzipped", 2, train=30, test=9, side=9, classes=3, compress=True)
    write_idx_folder(work.folder / "plain", 3, train=30, test=9, side=9, classes=3)
    write_picture_folder(work.folder / "classes", 1, per_class=8, side=9)
    work.run("import", WEIGHTS[0], "--preset", "tiny", "--data", "idx", "--run-name", "run").success()
    work.run("export", "run", "--format", "burnpack", "-q").success()
    shutil.copy(next((work.run_folder("run") / "export").glob("*.bpk")), work.folder / "tiny.bpk")
    work.run(*TRAIN, "--data", "idx", "--epochs", "2", "--checkpoint-every", "1", "--run-name", "resumed").success()
    work.run(*TRAIN, "--data", "classes", "--image-size", "9", "--run-name", "pictures").success()
    work.cache = next((work.folder / "artifacts").rglob("sha256.txt")).parent
    (work.folder / "settings.toml").write_text(work.run("presets", "show", "best").success().stdout)
    work.expected = {name: work.results(name) for name in ("resumed", "pictures")}
    work.digits = [path for folder in ("tests/handwriting", "fuzz/corpus/picture")
                   for path in sorted((REPOSITORY / folder).iterdir()) if path.suffix in PICTURES]
    work.weights = WEIGHTS + [work.folder / "tiny.bpk"]
    work.data = write_data(work.folder / "data")
    return work


def write_data(folder):
    """Writes files that are data sets by themselves, and returns their paths."""
    folder.mkdir()
    for name in ("table", "archive"):
        for path in sorted((REPOSITORY / "fuzz/corpus" / name).iterdir()):
            shutil.copy(path, folder / path.name)
    pictures = folder.with_name("classes")
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for path in sorted(pictures.rglob("*.png")):
            archive.write(path, path.relative_to(pictures))
    with tarfile.open(folder / "pictures.tar.gz", "w:gz") as archive:
        archive.add(pictures, "pictures")
    return sorted(folder.iterdir())


TRAIN = ("--preset", "tiny", "-q", "--limit-train", "20")


def case(work, seed):
    """Mutates 100 files of one kind."""
    rng = random_of(seed)
    kinds = [kind for kind, weight in KINDS.items() for _ in range(weight)]
    kind = kinds[seed % len(kinds)]
    folder = pathlib.Path(tempfile.mkdtemp(dir=work.folder))
    try:
        kind(work, rng, folder)
    except Failure as failure:
        saved = pathlib.Path(tempfile.mkdtemp(prefix=f"trust-files-{seed}-")) / "files"
        shutil.copytree(folder, saved)
        raise Failure(f"{failure}\nThe files are in {saved}.") from failure
    shutil.rmtree(folder)
    return {"files": FILES, f"files of {kind.__name__.replace('_', ' ')}": FILES}


def check(work, *arguments):
    """Runs a command on a damaged file, checks its limits, and returns its output."""
    output = work.run(*arguments, preexec_fn=limit_address_space)
    require(output.seconds < MAX_SECONDS, f"{output.seconds:.0f} s:", output)
    require(output.megabytes < MAX_MEGABYTES, f"{output.megabytes:.0f} MB:", output)
    require(output.code in (0, 1, 2), "exit code:", output)
    if output.code != 0:
        require("error: " in output.stderr, "no message:", output)
    return output


def limit_address_space():
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))


def damage(rng, source, others, target):
    """Writes a mutated copy of a file."""
    other = rng.choice(others).read_bytes()
    target.write_bytes(mutate(rng, target.name, source.read_bytes(), other))


def pictures(work, rng, folder):
    """Pictures to predict, all in one process."""
    # Small pictures more often: their mutations concern the format more often than pixels.
    for number in range(FILES):
        source = min(rng.sample(work.digits, 2), key=lambda path: path.stat().st_size)
        damage(rng, source, work.digits, folder / f"{number}{source.suffix}")
    raw = ["--raw"] if rng.random() < 0.3 else []
    check(work, "predict", "run", folder, "--json", "-q", *raw)


def training_pictures(work, rng, folder):
    """Pictures to train on, among some that are readable."""
    shutil.copytree(work.folder / "classes", folder, dirs_exist_ok=True)
    for number in range(FILES):
        source = rng.choice(work.digits)
        damage(rng, source, work.digits, folder / f"class{number % 3}" / f"damaged{number}{source.suffix}")
    name = f"pictures-{rng.getrandbits(60)}"
    check(work, *TRAIN, "--data", folder, "--image-size", "9", "--max-steps", "1", "--run-name", name)
    shutil.rmtree(work.run_folder(name), ignore_errors=True)


def idx_files(work, rng, folder):
    """One of the four files of a data set."""
    for _ in range(FILES):
        source = work.folder / rng.choice(("plain", "gzipped"))
        data = folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(source, data)
        files = sorted(data.iterdir())
        damaged = rng.choice(files)
        damage(rng, damaged, files, damaged)
        name = f"idx-{rng.getrandbits(60)}"
        check(work, *TRAIN, "--data", data, "--max-steps", "1", "--run-name", name)
        shutil.rmtree(work.run_folder(name), ignore_errors=True)


def data_files(work, rng, folder):
    """A table, arrays or an archive."""
    for number in range(FILES):
        source = rng.choice(work.data)
        target = folder / f"{number}-{source.name}"
        damage(rng, source, work.data, target)
        check(work, "data", target, "--json", "-q", "--out", folder / "runs")
        target.unlink()
        shutil.rmtree(folder / "runs", ignore_errors=True)


def weights(work, rng, folder):
    """Weights to import."""
    for _ in range(FILES):
        source = rng.choice(work.weights)
        target = folder / source.name
        damage(rng, source, work.weights, target)
        name = f"weights-{rng.getrandbits(60)}"
        check(work, "import", target, "--preset", "tiny", "--data", "idx", "--run-name", name, "-q")
        shutil.rmtree(work.run_folder(name), ignore_errors=True)
        target.unlink()


def settings(work, rng, folder):
    """A file for --config. `summary` shows the network without making it, since a valid one may be huge."""
    source = work.folder / "settings.toml"
    for _ in range(FILES):
        damage(rng, source, [source], folder / "settings.toml")
        check(work, "summary", "--config", folder / "settings.toml")


def run_files(work, rng, folder):
    """A file of a run, read by predict, compare, evaluate or report."""
    picture = REPOSITORY / "tests/handwriting/5-tiny.png"
    for _ in range(FILES):
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(work.run_folder(rng.choice(("resumed", "pictures"))), run)
        names = ("config.toml", "model.safetensors", "metrics.jsonl", "evaluation.json", "metrics.csv", "images.json",
                 "confidence.safetensors")
        name = rng.choice([name for name in names if (run / name).exists()])
        damage(rng, run / name, [path for path in run.iterdir() if path.is_file()], run / name)
        command = rng.choice((("predict", run, picture), ("compare", run, "resumed"), ("evaluate", run),
                              ("report", run)))
        check(work, *command, "-q")


def checkpoints(work, rng, folder):
    """The last checkpoint of a run that is resumed. Without a valid checksum, it is never accepted."""
    for _ in range(FILES):
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(work.run_folder("resumed"), run)
        last = max((run / "checkpoint").iterdir())
        original = last.read_bytes()
        damage(rng, last, list((run / "checkpoint").iterdir()), last)
        changed = last.read_bytes()
        is_sealed = hashlib.sha256(changed[:-32]).digest() == changed[-32:]
        output = check(work, "--resume", run, "-q")
        if changed == original:
            output.success()
        elif not is_sealed:
            require(output.code == 1, "damaged checkpoint accepted:", output)


def cached_pictures(work, rng, folder):
    """The cache of decoded pictures. A damaged one is not used: the result stays the same."""
    original = {path: path.read_bytes() for path in work.cache.iterdir()}
    for _ in range(FILES):
        damaged = rng.choice(sorted(original))
        shutil.copy(damaged, folder / damaged.name)
        damage(rng, folder / damaged.name, sorted(original), damaged)
        shutil.copy(damaged, folder / damaged.name)
        name = f"cached-{rng.getrandbits(60)}"
        check(work, *TRAIN, "--data", "classes", "--image-size", "9", "--run-name", name).success()
        require(work.results(name) == work.expected["pictures"], "other results with a damaged", damaged.name)
        shutil.rmtree(work.run_folder(name))
        for path, data in original.items():
            path.write_bytes(data)


# How often each kind comes.
KINDS = {pictures: 10, training_pictures: 2, idx_files: 2, data_files: 4, weights: 4, settings: 1, run_files: 3, checkpoints: 2,
         cached_pictures: 1}
