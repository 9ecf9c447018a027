"""Random damage to files, and repair of the checksums that would otherwise hide most of it from the parsers."""

import gzip
import hashlib
import io
import struct
import zipfile
import zlib

from support import png_chunk

# Numbers that overflow, sign-extend or allocate.
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
# Text for formats of text.
TOKENS = (b"-1", b"0", b"1e999", b"NaN", b"null", b"{}", b"[[[[[[", b'"', b"\n", b"\xff\xfe", b"99999999999999999999",
          b"18446744073709551615", b"../../..", b"\0")


def mutated(rng, data, other):
    """Returns `data` with one to four random changes; `other` is a file to take parts from."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(MUTATIONS)(rng, data, other)
    return bytes(data)


def position(rng, data):
    """Returns a random position, often in the header."""
    size = min(len(data), 64) if rng.random() < 0.4 else len(data)
    return rng.randrange(size) if size else 0


def flip_bit(rng, data, other):
    if data:
        data[position(rng, data)] ^= 1 << rng.randrange(8)
    return data


def set_byte(rng, data, other):
    if data:
        data[position(rng, data)] = rng.choice((0, 255, rng.randrange(256)))
    return data


def set_number(rng, data, other):
    at, size = position(rng, data), rng.choice((2, 4, 8))
    number = rng.choice(EXTREMES) % (1 << 8 * size)
    data[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
    return data


def truncate(rng, data, other):
    return data[: position(rng, data)]


def insert(rng, data, other):
    at = position(rng, data)
    data[at:at] = rng.randbytes(rng.choice((1, 4, 50, 3000)))
    return data


def delete(rng, data, other):
    at = position(rng, data)
    del data[at : at + rng.choice((1, 2, 8, 100))]
    return data


def swap_blocks(rng, data, other):
    size = rng.choice((1, 8, 64, 512))
    a, b = position(rng, data), position(rng, data)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def repeat_block(rng, data, other):
    at, size = position(rng, data), rng.choice((1, 8, 64, 512))
    data[at:at] = data[at : at + size] * rng.choice((1, 3, 100))
    return data


def set_token(rng, data, other):
    at = position(rng, data)
    data[at : at + rng.choice((0, 1, 3))] = rng.choice(TOKENS)
    return data


def splice(rng, data, other):
    return data[: position(rng, data)] + other[position(rng, other) :]


def concatenate(rng, data, other):
    return data + other


MUTATIONS = (flip_bit, flip_bit, set_byte, set_number, set_number, truncate, insert, delete, swap_blocks, repeat_block,
             set_token, splice, concatenate)


# Each of these mutates the content behind a checksum, and writes a valid checksum.


def mutated_gzip(rng, data, other):
    return gzip.compress(mutated(rng, gzip.decompress(data), other), 1, mtime=0)


def mutated_checkpoint(rng, data, other):
    content = mutated(rng, data[:-32], other[:-32])
    return content + hashlib.sha256(content).digest()


def mutated_zip(rng, data, other):
    """Mutates one entry of an archive, and writes the archive anew."""
    source = zipfile.ZipFile(io.BytesIO(data))
    entries = [(info, source.read(info)) for info in source.infolist()]
    # The small entries hold the structure.
    small = [at for at, (_, content) in enumerate(entries) if 0 < len(content) < 4000]
    chosen = rng.choice(small) if small and rng.random() < 0.8 else rng.randrange(len(entries))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for at, (info, content) in enumerate(entries):
            archive.writestr(info, mutated(rng, content, other[:4000]) if at == chosen else content)
    return target.getvalue()


def mutated_png(rng, data, other):
    """Mutates the content of one chunk, or the pixels behind the compression."""
    chunks = []
    at = 8
    while at + 8 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    chunk = rng.choice(chunks)
    if chunk[0] == b"IDAT" and rng.random() < 0.5:
        try:
            chunk[1] = zlib.compress(mutated(rng, zlib.decompress(chunk[1]), other), 1)
        except zlib.error:
            # The data continue in another chunk.
            chunk[1] = mutated(rng, chunk[1], other)
    else:
        chunk[1] = mutated(rng, chunk[1], other)
    if rng.random() < 0.1:
        rng.shuffle(chunks)
    return data[:8] + b"".join(png_chunk(kind, content) for kind, content in chunks)


def mutated_safetensors(rng, data, other):
    """Mutates the header, and corrects its length."""
    (size,) = struct.unpack("<Q", data[:8])
    header = mutated(rng, data[8 : 8 + size], other[8:200])
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def mutate(rng, name, data, other):
    """Mutates a file as it is, or behind the checksum of its format, which the name tells."""
    behind_checksum = next((function for suffix, function in BEHIND_CHECKSUM.items() if name.endswith(suffix)), None)
    if behind_checksum and rng.random() < 0.5:
        return behind_checksum(rng, data, other)
    return mutated(rng, data, other)


BEHIND_CHECKSUM = {
    ".gz": mutated_gzip,
    ".checkpoint": mutated_checkpoint,
    ".pt": mutated_zip,
    ".keras": mutated_zip,
    ".png": mutated_png,
    ".safetensors": mutated_safetensors,
}
