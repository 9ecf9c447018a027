"""Prints which images that are no digits a network rejects.

    python3 measure.py --fashion /usr/share/datasets/fashion-mnist --photographs cifar10/test

At the distance that accepts 99% of MNIST's test digits, it prints the share of other images that is rejected, and the area under
the ROC curve of the distance and of the highest probability. Photographs are scaled and converted to gray.
"""

import argparse
import bisect
import gzip
import json
import pathlib
import subprocess
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
MNIST = REPOSITORY / "crates/data/mnist"
SIDE = 28


def images(file, count):
    """Returns the first images of an IDX file as rows of a table."""
    data = gzip.decompress(pathlib.Path(file).read_bytes())[16:]
    size = SIDE * SIDE
    for at in range(min(count, len(data) // size)):
        yield ",".join(str(pixel) for pixel in data[at * size : (at + 1) * size])


def predictions(trainer, network, *arguments):
    """Returns the distance and the highest probability of each image, and whether it is called sure."""
    command = [trainer, "predict", network, "--json", "--quiet", *map(str, arguments)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(line["distance"], line["probability"], line["verdict"] == "sure") for line in map(json.loads, lines)]


def of_table(trainer, network, rows):
    with tempfile.TemporaryDirectory() as folder:
        table = pathlib.Path(folder) / "images.csv"
        header = ",".join(f"pixel{at}" for at in range(SIDE * SIDE))
        table.write_text("\n".join([header, *rows]) + "\n")
        return predictions(trainer, network, table)


def area(digits, others):
    """Returns the probability that a random element of others is above one of digits."""
    digits = sorted(digits)
    below = sum(bisect.bisect_left(digits, other) + bisect.bisect_right(digits, other) for other in others)
    return below / (2 * len(digits) * len(others))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", default=REPOSITORY / "target/release/trainer", help="the program")
    parser.add_argument("--network", nargs="+", default=["pretrained", "pretrained-best"], help="networks of digits")
    parser.add_argument("--fashion", type=pathlib.Path, help="folder of Fashion-MNIST")
    parser.add_argument("--photographs", help="folder of pictures")
    options = parser.parse_args()
    for network in options.network:
        digits = of_table(options.trainer, network, images(MNIST / "t10k-images-idx3-ubyte.gz", 10000))
        distances = [distance for distance, _, _ in digits]
        limit = sorted(distances)[len(distances) * 99 // 100 - 1]
        print(f"{network}: {sum(sure for _, _, sure in digits) / len(digits):.2%} of the digits are called sure; "
              f"99% are within {limit:.3f}")
        others = {}
        if options.fashion:
            rows = images(options.fashion / "t10k-images-idx3-ubyte.gz", 10000)
            others["Fashion-MNIST"] = of_table(options.trainer, network, rows)
        if options.photographs:
            others["photographs"] = predictions(options.trainer, network, options.photographs, "--raw")
        for name, found in others.items():
            rejected = sum(distance > limit for distance, _, _ in found) / len(found)
            sure = sum(sure for _, _, sure in found) / len(found)
            by_distance = area(distances, [distance for distance, _, _ in found])
            by_probability = area([-probability for _, probability, _ in digits],
                                  [-probability for _, probability, _ in found])
            print(f"  {name}: {len(found)} images, {rejected:.2%} beyond that distance, {sure:.2%} called sure; AUROC "
                  f"{by_distance:.4f}, of the highest probability {by_probability:.4f}")


if __name__ == "__main__":
    main()
