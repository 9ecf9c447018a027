"""Reader and writer of the records in a checkpoint: burnpack, Burn's file format, with 32-bit numbers."""

import hashlib
import json
import struct


def read_checkpoint(path):
    """Returns the header of a checkpoint and its four records."""
    data = path.read_bytes()[:-32]
    _, header, rest = data.split(b"\n", 2)
    header = json.loads(header)
    records = {}
    for name in ("model", "optimizer", "best", "average"):
        records[name], rest = rest[: header[name]], rest[header[name] :]
    return header, records


def write_checkpoint(path, header, records):
    header = header | {name: len(record) for name, record in records.items()}
    data = b"trainer checkpoint 1\n" + json.dumps(header).encode() + b"\n" + b"".join(records.values())
    path.write_bytes(data + hashlib.sha256(data).digest())


def tensors(record):
    """Returns name, shape and byte range of each tensor of a record."""
    assert record[:4] == b"NRUB", record[:4]
    (size,) = struct.unpack("<I", record[6:10])
    metadata, _ = cbor(record[10 : 10 + size], 0)
    # The data begin at a multiple of 256 bytes.
    start = -(-(10 + size) // 256) * 256
    return [(name, entry["shape"], start + entry["data_offsets"][0], start + entry["data_offsets"][1])
            for name, entry in metadata["tensors"].items()]


def read_tensors(record):
    """Returns the numbers of each tensor by its name."""
    return {name: struct.unpack(f"<{(end - begin) // 4}f", record[begin:end])
            for name, _, begin, end in tensors(record)}


def with_tensors(record, numbers):
    """Returns a record with other numbers."""
    record = bytearray(record)
    for name, _, begin, end in tensors(record):
        record[begin:end] = struct.pack(f"<{(end - begin) // 4}f", *numbers[name])
    return bytes(record)


def cbor(data, at):
    """Decodes a value of CBOR (RFC 8949) at a position, and returns it with the position after it."""
    major, size = data[at] >> 5, data[at] & 31
    at += 1
    if size >= 24:
        length = 1 << (size - 24)
        size, at = int.from_bytes(data[at : at + length], "big"), at + length
    if major == 0:
        return size, at
    if major == 3:
        return data[at : at + size].decode(), at + size
    if major == 4:
        items = []
        for _ in range(size):
            item, at = cbor(data, at)
            items.append(item)
        return items, at
    if major == 5:
        entries = {}
        for _ in range(size):
            key, at = cbor(data, at)
            entries[key], at = cbor(data, at)
        return entries, at
    raise ValueError(f"CBOR type {major} is not expected in a record")
