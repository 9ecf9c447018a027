"""Imports networks by their file alone, and compares the accuracy on MNIST's test images with that of their framework."""

import collections
import json
import subprocess

# Accuracies are equal up to two of the 10,000 test images.
TOLERANCE = 0.02 / 100


def imported(trainer, path, folder):
    """Returns the accuracy of the imported network, or the message of the refusal."""
    command = [trainer, "import", path, "--out", folder / "runs", "--run-name", path.name]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        return result.stderr.partition("error: ")[2].replace(f"{path}: ", "").splitlines()[0]
    return json.loads((folder / "runs" / path.name / "evaluation.json").read_text())["accuracy"]


class Verdicts:
    """Counts files that are right, refused and wrong, by their kind."""

    def __init__(self, trainer, folder):
        self.trainer, self.folder = trainer, folder
        self.counts = collections.defaultdict(collections.Counter)

    def add(self, path, kind, expected):
        """Imports a file and prints a row. `expected` is the accuracy in the framework."""
        actual = imported(self.trainer, path, self.folder)
        if isinstance(actual, str):
            verdict, detail = "refused", actual
        else:
            verdict = "right" if abs(actual - expected) <= TOLERANCE else "wrong"
            detail = f"{expected:.2%} in the framework, {actual:.2%} here"
        self.counts[kind][verdict] += 1
        print(f"{path.name:40} {verdict:8} {detail}", flush=True)

    def finish(self):
        """Prints the table, and returns whether a file is wrong."""
        print("\n| kind | right | refused | wrong |\n|---|---|---|---|")
        for kind, counts in self.counts.items():
            print(f"| {kind} | {counts['right']} | {counts['refused']} | {counts['wrong']} |")
        return any(counts["wrong"] for counts in self.counts.values())
