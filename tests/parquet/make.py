"""Writes the Parquet files of this folder, with digits of MNIST in the form of the Hugging Face Hub.

    pip install pyarrow pillow
    python3 make.py
"""

import gzip
import io
import json
import pathlib

import pyarrow
import pyarrow.parquet
from PIL import Image

FOLDER = pathlib.Path(__file__).parent
MNIST = FOLDER.parent.parent / "crates/data/mnist"
CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
# The classes of the features, as `datasets` writes them.
FEATURES = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}


def digits(prefix, count):
    """Returns the pictures of the first digits of a file of MNIST, with their labels."""
    pixels = gzip.decompress((MNIST / f"{prefix}-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((MNIST / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())[8:]
    for at in range(count):
        stream = io.BytesIO()
        Image.frombytes("L", (28, 28), pixels[784 * at : 784 * (at + 1)]).save(stream, "png")
        yield {"bytes": stream.getvalue(), "path": None}, labels[at]


def write(name, rows, **options):
    images, labels = zip(*rows)
    image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array(images, image_type), "label": pyarrow.array(labels, pyarrow.int64())})
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), FOLDER / name, **options)


train = list(digits("train", 80))
write("digits/train-00000-of-00002.parquet", train[:40], compression="snappy")
write("digits/train-00001-of-00002.parquet", train[40:], compression="zstd", row_group_size=15)
write("digits/test-00000-of-00001.parquet", digits("t10k", 20), compression="none")
