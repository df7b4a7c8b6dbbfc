"""Inputs for the fuzzer that get past the first check: fields of ELF files, zips and tars changed one by one."""

from __future__ import annotations

import random
from collections.abc import Callable

Field = tuple[int, int]  # offset, bytes


def elf_fields(data: bytes) -> list[Field]:
    """Where the numbers of an ELF file's headers, dynamic segment, symbols, relocations and function table are."""
    if data[:4] != b"\x7fELF" or len(data) < 64:
        return []
    wide = data[4] == 2
    word = 8 if wide else 4
    fields = [(4, 1), (5, 1), (16, 2), (18, 2)]
    fields += [(24 + index * word, word) for index in range(3)] + [(24 + 3 * word + 4 + i * 2, 2) for i in range(6)]
    table, size = int.from_bytes(data[24 + word : 24 + 2 * word], "little"), 56 if wide else 32
    count = int.from_bytes(data[24 + 3 * word + 8 : 24 + 3 * word + 10], "little")
    for at in range(table, min(table + min(count, 16) * size, len(data) - size), size):
        fields += [(at, 4), (at + 4, 4)] + [(at + 8 + index * word, word) for index in range((size - 8) // word)]
        kind = int.from_bytes(data[at : at + 4], "little")
        begin = int.from_bytes(data[at + word : at + 2 * word], "little")
        length = int.from_bytes(data[at + 4 * word : at + 5 * word], "little")
        if kind == 2:
            fields += [(begin + index, word) for index in range(0, min(length, 64 * word), word)]
        elif kind == 0x6474E550:  # the function table: its header, then pairs
            fields += [(begin + index, 1) for index in range(4)]
            fields += [(begin + index, 4) for index in range(4, min(length, 256), 4)]
    for tag, size in ((6, 24), (7, 24), (23, 24), (5, 1)):  # symbols, relocations, strings: by the dynamic segment
        begin = _tagged(data, fields, word, tag)
        fields += [(begin + index, min(word, size)) for index in range(0, 16 * size, word)] if begin else []
    return [(at, size) for at, size in fields if at >= 0 and at + size <= len(data)]


def _tagged(data: bytes, fields: list[Field], word: int, tag: int) -> int:
    for at, size in fields:
        if size == word and data[at : at + word] == tag.to_bytes(word, "little"):
            return int.from_bytes(data[at + word : at + 2 * word], "little")
    return 0


def zip_fields(data: bytes) -> list[Field]:
    fields: list[Field] = []
    for mark, sizes in (
        (b"PK\1\2", (1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4, 8, 8)),
        (b"PK\3\4", (2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 8, 8)),
        (b"PK\5\6", (2, 2, 2, 2, 4, 4, 2)),
    ):
        at = data.find(mark)
        while at >= 0:
            place = at + 4
            for size in sizes:
                fields.append((place, size))
                place += size
            at = data.find(mark, at + 4)
    return [(at, size) for at, size in fields if at + size <= len(data)]


def tar_fields(data: bytes) -> list[Field]:
    """Of every header: name, size, type, link's target, prefix; the checksums are put right by `tar_repaired`."""
    fields: list[Field] = []
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            fields += [(at, 8), (at + 124, 12), (at + 156, 1), (at + 157, 8), (at + 345, 8)]
    return fields


def tar_repaired(data: bytes) -> bytes:
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


_TYPES = b"0123457LKxgS\0"
_TAR_SIZES = (b"00000000000\0", b"77777777777\0", b"00000000777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0")
_NAMES = (b"../../..", b"/etc/pas", b".wh..wh.", b"a/b/c/d\0", b"var/lib/", b".wh.usr\0")


def changed(data: bytes, seed: int, fields: Callable[[bytes], list[Field]]) -> bytes:
    """A few of the fields set to extreme, neighbouring, borrowed or random values."""
    chance = random.Random(seed)
    found = fields(data)
    if not found:
        return data
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, size = chance.choice(found)
        if fields is tar_fields and size in (1, 8, 12):
            choices: tuple[bytes, ...] = {1: tuple(_TYPES[i : i + 1] for i in range(13)), 8: _NAMES, 12: _TAR_SIZES}[
                size
            ]
            out[at : at + size] = chance.choice(choices)
            continue
        old = int.from_bytes(out[at : at + size], "little")
        other, width = chance.choice(found)
        value = chance.choice(
            (
                *(0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1, 2**63),
                *(
                    len(data),
                    len(data) - 1,
                    len(data) + 1,
                    old + 1,
                    old - 1,
                    old + 8,
                    old * 2,
                    old ^ 1 << chance.randrange(64),
                ),
                *(at, int.from_bytes(out[other : other + width], "little"), chance.getrandbits(64)),
            )
        )
        out[at : at + size] = (value % (1 << size * 8)).to_bytes(size, "little")
    return tar_repaired(bytes(out)) if fields is tar_fields else bytes(out)


def repeated(data: bytes, seed: int) -> bytes:
    """A piece of it again, somewhere else."""
    chance = random.Random(seed)
    if not data:
        return data
    begin = chance.randrange(len(data))
    piece = data[begin : begin + chance.choice((1, 4, 8, 24, 64, 512))]
    at = chance.randrange(len(data))
    if chance.random() < 0.5:
        return data[:at] + piece + data[at + len(piece) :]
    return data[:at] + piece * chance.choice((1, 2, 16)) + data[at:]
