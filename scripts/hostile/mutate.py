"""Damage to files: of their bytes, of the parts they are made of, and of the sizes they claim."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

from scripts.hostile.dice import throw
from scripts.hostile.parts import SIZE_FIELDS, split_file
from scripts.hostile.pictures import PNG_MAGIC, base_pictures

Mutator = Callable[[bytes, random.Random], bytes]

# Where integers overflow, change their sign or end.
EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
)
SIZES = (0, 1, 3, 255, 4096, 16_384, 65_535)
HEAD = 96  # bytes of a file that decide the most
MOST_BYTES = 256 * 1024  # of a mutated file; the bombs are longer


def make_picture(seed: int, index: int) -> tuple[str, bytes]:
    """Return the name and bytes of a damaged picture; the same for the same numbers."""
    dice = throw(seed, "picture", index)
    bases = base_pictures()
    name = dice.choice(sorted(bases))
    return name, damage(bases[name], dice)


def damage(data: bytes, dice: random.Random) -> bytes:
    """Return a file with one to four kinds of damage, mostly one."""
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 4))):
        (mutator,) = dice.choices(
            [each for each, _ in MUTATORS], [weight for _, weight in MUTATORS]
        )
        data = mutator(data, dice)[:MOST_BYTES]
    return data


def flip_bits(data: bytes, dice: random.Random) -> bytes:
    """Flip some bits."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 8, 32))):
        if changed:
            changed[place_in(changed, dice)] ^= 1 << dice.randrange(8)
    return bytes(changed)


def place_in(data: bytes | bytearray, dice: random.Random) -> int:
    """Return an offset, half of the time near the beginning."""
    return dice.randrange(min(len(data), HEAD) if dice.random() < 0.5 else len(data))


def truncate(data: bytes, dice: random.Random) -> bytes:
    """Cut the end off."""
    return data[: dice.randrange(len(data) + 1)]


def overwrite(data: bytes, dice: random.Random) -> bytes:
    """Replace a range by noise, or by one byte again and again."""
    start, length = dice.randrange(len(data) + 1), dice.randrange(1, 64)
    noise = dice.randbytes(length) if dice.random() < 0.5 else dice.randbytes(1) * length
    return data[:start] + noise + data[start + length :]


def remove_range(data: bytes, dice: random.Random) -> bytes:
    """Take a range out."""
    start = dice.randrange(len(data) + 1)
    return data[:start] + data[start + dice.randrange(1, 64) :]


def repeat_range(data: bytes, dice: random.Random) -> bytes:
    """Repeat a range in place."""
    start = dice.randrange(len(data) + 1)
    piece = data[start : start + dice.randrange(1, 200)]
    return data[:start] + piece * dice.choice((2, 3, 10, 100)) + data[start:]


def append_noise(data: bytes, dice: random.Random) -> bytes:
    """Go on after the end."""
    return data + dice.choice((dice.randbytes(100), bytes(1000), data, b"\xff\xd8\xff\xd9"))


def set_edge(data: bytes, dice: random.Random) -> bytes:
    """Write an integer at the edge of its range, of any size and order."""
    if not data:
        return data
    order, kind = dice.choice("<>"), dice.choice("BHI")
    value = dice.choice(EDGES) & (1 << 8 * struct.calcsize(kind)) - 1
    start = place_in(data, dice)
    return data[:start] + struct.pack(order + kind, value) + data[start + struct.calcsize(kind) :]


def splice(data: bytes, dice: random.Random) -> bytes:
    """Put the beginning of one file before the rest of another."""
    other = dice.choice([each for _, each in sorted(base_pictures().items())])
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other)) :]


def change_parts(data: bytes, dice: random.Random) -> bytes:
    """Repeat, drop, swap or borrow segments, chunks or blocks."""
    parts = split_file(data)
    here, there = dice.randrange(len(parts)), dice.randrange(len(parts))
    kind = dice.choice(("repeat", "repeat", "drop", "swap", "borrow", "shuffle"))
    if kind == "repeat":
        parts[here] *= dice.choice((2, 3, 50, 500))
    elif kind == "drop":
        del parts[here]
    elif kind == "swap":
        parts[here], parts[there] = parts[there], parts[here]
    elif kind == "borrow":
        bases = base_pictures()
        parts.insert(here, dice.choice(split_file(bases[dice.choice(sorted(bases))])))
    else:
        body = parts[1:]
        dice.shuffle(body)
        parts[1:] = body
    return b"".join(parts)


def damage_part(data: bytes, dice: random.Random) -> bytes:
    """Damage the inside of one part; a PNG's chunk gets the right checksum, or nobody looks further."""
    parts = split_file(data)
    index = dice.randrange(len(parts))
    part = dice.choice((flip_bits, set_edge, overwrite))(parts[index], dice)
    if data.startswith(PNG_MAGIC) and len(part) >= 12:
        part = part[:-4] + struct.pack(">I", zlib.crc32(part[4:-4]))
    parts[index] = part
    return b"".join(parts)


def claim_size(data: bytes, dice: random.Random) -> bytes:
    """Claim another width and height; a PNG's header gets the right checksum."""
    # Large within the limit costs a fraction of a second and is the bombs' business.
    width, height = dice.choice(SIZES), dice.choice(SIZES)
    if dice.random() < 0.02:
        width = height = 5000
    changed = bytearray(data)
    for pattern, form in SIZE_FIELDS.values():
        found = pattern.search(data)
        if found and len(data) >= found.end() + struct.calcsize(form):
            sizes = (
                (height, width) if form == ">HH" else (width, height)
            )  # a JPEG's height is first
            struct.pack_into(form, changed, found.end(), *sizes)
    if data.startswith(PNG_MAGIC) and len(changed) >= 33:
        struct.pack_into(">I", changed, 29, zlib.crc32(changed[12:29]))
    return bytes(changed)


MUTATORS: tuple[tuple[Mutator, int], ...] = (
    (flip_bits, 6),
    (truncate, 3),
    (overwrite, 3),
    (remove_range, 2),
    (repeat_range, 2),
    (append_noise, 1),
    (set_edge, 5),
    (splice, 2),
    (change_parts, 5),
    (damage_part, 6),
    (claim_size, 2),
)
