"""The trainer's order of the images in an epoch (crates/data/src/shuffle.rs), in Python.

It is the shuffle of the Rust crate `rand` 0.9, with ChaCha8 as the generator.
"""

import struct

MASK = 0xFFFFFFFF


def permutation(count, seed, stream):
    """Returns a random permutation of the numbers below `count`, as a list."""
    numbers = chacha8(seed, stream)
    order = list(range(count))
    chunk, left = 0, 1
    for n in range(count):
        # A chunk is a random number below (n + 1) * (n + 2) * ..., from which several indices follow.
        left -= 1
        if left < 0:
            bound, size = bound_of(n + 1)
            chunk, left = below(bound, numbers), size - 1
        if left == 0:
            index = chunk
        else:
            chunk, index = divmod(chunk, n + 1)
        order[n], order[index] = order[index], order[n]
    return order


def bound_of(first):
    """Returns the largest product first * (first + 1) * ... below 2^32, and its number of factors."""
    product, factor = first, first + 1
    while product * factor <= MASK:
        product, factor = product * factor, factor + 1
    return product, factor - first


def below(bound, numbers):
    """Returns a random number below `bound`, by Canon's method."""
    result, low = divmod(next(numbers) * bound, 1 << 32)
    if low > (1 << 32) - bound:
        high = next(numbers) * bound >> 32
        result += low + high > MASK
    return result


def chacha8(seed, stream):
    """Yields random numbers of 32 bits."""
    key = key_of(seed)
    counter = 0
    while True:
        yield from chacha_block([*struct.unpack("<4I", b"expand 32-byte k"), *key, counter & MASK, counter >> 32,
                                 stream & MASK, stream >> 32])
        counter += 1


def key_of(seed):
    """Expands a seed of 64 bits to a key, with PCG32."""
    key = []
    for _ in range(8):
        seed = (seed * 6364136223846793005 + 11634580027462260723) % (1 << 64)
        shifted = (((seed >> 18) ^ seed) >> 27) & MASK
        rotation = seed >> 59
        key.append((shifted >> rotation | shifted << (32 - rotation)) & MASK)
    return key


def chacha_block(state):
    words = list(state)
    for _ in range(4):
        for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                           (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            quarter_round(words, a, b, c, d)
    return [(word + start) & MASK for word, start in zip(words, state)]


def quarter_round(words, a, b, c, d):
    for x, y, z, rotation in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        words[x] = (words[x] + words[y]) & MASK
        words[z] ^= words[x]
        words[z] = (words[z] << rotation | words[z] >> (32 - rotation)) & MASK


assert permutation(8, 42, 1) == [6, 4, 5, 3, 2, 1, 0, 7]
