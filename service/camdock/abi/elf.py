"""An ELF file's addresses, symbols and links. pyelftools reads the headers; the long tables are read here, as arrays.

pyelftools makes an object of every symbol and relocation, some 20 µs each; OpenCV alone has 200,000 of them.

Runs in: any process.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import IO, cast

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.structs import ELFStructs

Bytes = bytes | mmap.mmap

MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64", "EM_386": "i386", "EM_ARM": "arm"}
DECODED = ("x86_64", "aarch64")  # the machines whose code is read

# Real files stay below a tenth of these limits; a file beyond one of them was made to take time or memory.
_MOST_SEGMENTS = 1024
_MOST_LOADED = 64  # segments, of those that are loaded
_MOST_TAGS = 1024  # entries of the dynamic segment
_MOST_MODULES = 1024  # that one file can be imported as; libpython has a hundred
_MOST_SYMBOLS = 1 << 20
_MOST_POINTERS = 1 << 20
_MOST_FUNCTIONS = 1 << 20
_LONGEST_NAME = 4096
_EXECUTABLE, _WRITABLE = 1, 2
_PIECE = 16 << 20  # bytes of code
_OVERLAP = 4096  # what is looked for in code is never longer
# What pyelftools lets through from a spoiled file, besides its own errors.
_SPOILED = (ELFError, ConstructError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError,
            OverflowError, struct.error, RecursionError, MemoryError)  # fmt: skip


class Unreadable(Exception):
    """An ELF file that cannot be read: truncated, corrupted, hostile. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the file that is loaded into memory: `size` bytes at `offset` of the file, at `address` once loaded."""

    address: int
    offset: int
    size: int
    executable: bool
    writable: bool = False


class Elf:
    """One ELF file's bytes, its addresses understood.

    machine  "x86_64", "aarch64", "arm", "i386", or "machine N"
    bits     32 or 64
    raises   Unreadable, here and from every property
    """

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self._tags: dict[str, int] = {}
        self._needed: list[int] = []
        self._places: list[int] = []  # addresses of the tables of dynamic linking
        try:
            self._read_headers()
        except _SPOILED as error:
            raise Unreadable(f"not a readable ELF file: {str(error) or type(error).__name__}") from error

    def _read_headers(self) -> None:
        kind, order = bytes(self.data[4:5]), bytes(self.data[5:6])
        if kind not in (b"\1", b"\2") or order not in (b"\1", b"\2"):
            raise Unreadable(f"neither 32 nor 64 bits, little nor big endian: {bytes(self.data[4:6]).hex(' ')}")
        self.bits = 32 if kind == b"\1" else 64
        self.little = order == b"\1"
        structs, stream = _structs(self.bits, self.little), cast(IO[bytes], _Stream(self.data))
        file = struct_parse(structs.Elf_Ehdr, stream, 0)
        self.machine = MACHINES.get(file["e_machine"], f"machine {file['e_machine']}")
        if file["e_phnum"] > _MOST_SEGMENTS:
            raise Unreadable(f"{file['e_phnum']} segments, of which {_MOST_SEGMENTS} would be many")
        self.segments: list[Segment] = []
        for index in range(file["e_phnum"]):
            at = file["e_phoff"] + index * file["e_phentsize"]
            header = struct_parse(structs.Elf_Phdr, stream, at)
            if header["p_type"] == "PT_LOAD":
                if len(self.segments) == _MOST_LOADED:
                    raise Unreadable(f"more than {_MOST_LOADED} segments to load")
                if header["p_offset"] + header["p_filesz"] > len(self.data):
                    raise Unreadable(
                        f"truncated: a segment ends at byte {header['p_offset'] + header['p_filesz']}, "
                        f"the file at {len(self.data)}"
                    )
                executable, writable = (bool(header["p_flags"] & flag) for flag in (_EXECUTABLE, _WRITABLE))
                self.segments.append(
                    Segment(header["p_vaddr"], header["p_offset"], header["p_filesz"], executable, writable)
                )
            elif header["p_type"] == "PT_GNU_EH_FRAME":
                self._tags["eh_frame_hdr"] = header["p_vaddr"]
            elif header["p_type"] == "PT_DYNAMIC":
                if self._places:
                    raise Unreadable("two dynamic segments")
                self._read_dynamic(header)

    def _read_dynamic(self, header: Mapping[str, int]) -> None:
        kind = ("<" if self.little else ">") + ("QQ" if self.bits == 64 else "II")
        start = header["p_offset"]
        size = min(header["p_filesz"], _MOST_TAGS * struct.calcsize(kind), len(self.data) - start)
        size -= size % struct.calcsize(kind)
        if size <= 0:
            return
        for tag, value in struct.iter_unpack(kind, self.data[start : start + size]):
            if tag == 0:
                break
            if tag == 1:
                self._needed.append(value)
            elif tag in _TAGS:
                self._tags[_TAGS[tag]] = value
            if tag in _PLACES:
                self._places.append(value)

    def offset(self, address: int) -> int | None:
        """Where in the file the byte of that address is; None where no byte of the file is loaded there."""
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.size:
                return segment.offset + address - segment.address
        return None

    def address(self, offset: int) -> int | None:
        """Where the byte at that offset is loaded; None where it is not."""
        for segment in self.segments:
            if segment.offset <= offset < segment.offset + segment.size:
                return segment.address + offset - segment.offset
        return None

    def executable(self, address: int) -> bool:
        """Whether code can be there."""
        return any(s.executable and s.address <= address < s.address + s.size for s in self.segments)

    @cached_property
    def code(self) -> list[Segment]:
        """The segments that hold machine code, in pieces that overlap: whoever copies one has little in memory."""
        segments = [segment for segment in self.segments if segment.executable]
        if sum(segment.size for segment in segments) > len(self.data):
            raise Unreadable("its segments of code overlap in the file")
        pieces = []
        for segment in segments:
            for begin in range(0, segment.size, _PIECE):
                size = min(_PIECE + _OVERLAP, segment.size - begin)
                pieces.append(Segment(segment.address + begin, segment.offset + begin, size, True))
        return pieces

    @cached_property
    def _outside_code(self) -> list[tuple[int, int]]:
        """Where texts can be in the file, as (begin, end). Linkers keep them apart from code since binutils 2.31: one
        whose constants have a segment of their own did. Of OpenCV's 72 MB, 57 need not be searched."""
        code = [(s.offset, s.offset + s.size) for s in self.segments if s.executable and not s.writable]
        if not any(s.size and not s.executable and not s.writable for s in self.segments):
            code = []
        parts, at = [], 0
        for begin, end in sorted(code):
            parts.append((at, begin))
            at = max(at, end)
        return [(begin, end) for begin, end in [*parts, (at, len(self.data))] if begin < end]

    def find(self, text: bytes, start: int = 0) -> int:
        """Offset of the first place from `start` on where that text stands, code left out; -1: nowhere."""
        for begin, end in self._outside_code:
            if start < end and (found := self.data.find(text, max(begin, start), end)) >= 0:
                return found
        return -1

    def read(self, address: int, size: int) -> bytes:
        """Up to `size` bytes from an address; fewer where the file ends or nothing is loaded."""
        offset = self.offset(address)
        return b"" if offset is None else bytes(self.data[offset : offset + size])

    def word(self, address: int) -> int | None:
        """The 64-bit number at an address."""
        found = self.read(address, 8)
        return int.from_bytes(found, "little") if len(found) == 8 else None

    def _string(self, index: int) -> str:
        start = self.offset(self._tags.get("strtab", -1) + index)
        if start is None:
            return ""
        end = self.data.find(b"\0", start, start + _LONGEST_NAME)
        return bytes(self.data[start:end]).decode("utf-8", "replace") if end >= 0 else ""

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The libraries this file is linked to, by the names it asks for them."""
        return tuple(name for name in map(self._string, self._needed) if name)

    @cached_property
    def soname(self) -> str:
        """The name it gives itself; "" without one."""
        return self._string(self._tags["soname"]) if "soname" in self._tags else ""

    # ------------------------------------------------------------------------------------------------- symbols

    @cached_property
    def _symbol_table(self) -> tuple[int, int]:
        """Offset in the file and number of the dynamic symbols."""
        start = self.offset(self._tags.get("symtab", -1))
        strings = self.offset(self._tags.get("strtab", -1))
        if start is None or strings is None:
            return 0, 0
        size = 24 if self.bits == 64 else 16
        # The table has no length of its own: it ends where the next table begins, or the segment.
        segment = next(s for s in self.segments if s.offset <= start < s.offset + s.size)
        after = [offset for offset in map(self.offset, self._places) if offset is not None and offset > start]
        return start, (min([*after, segment.offset + segment.size]) - start) // size

    def symbols(self) -> Iterator[tuple[int, str, int]]:
        """Dynamic symbols that are defined here: index, name, address."""
        for index, name, address in self._symbols():
            if address:
                yield index, self._string(name), address

    def _symbols(self) -> Iterator[tuple[int, int, int]]:
        """Index, name's index, address (0: not defined here)."""
        start, count = self._symbol_table
        order = "<" if self.little else ">"
        kind = order + ("IBBHQQ" if self.bits == 64 else "IIIBBH")
        size = struct.calcsize(kind)
        count = max(0, min(count, (len(self.data) - start) // size))
        if count > _MOST_SYMBOLS:
            raise Unreadable(f"{count:,} symbols, of which {_MOST_SYMBOLS:,} would be many")
        for index, entry in enumerate(struct.iter_unpack(kind, self.data[start : start + count * size])):
            if self.bits == 64:
                yield index, entry[0], entry[4] if entry[3] else 0
            else:
                yield index, entry[0], entry[1] if entry[5] else 0

    @cached_property
    def undefined(self) -> frozenset[str]:
        """Names of what it wants from the files it is linked to."""
        return frozenset(self._string(name) for _, name, address in self._symbols() if name and not address)

    @cached_property
    def inits(self) -> dict[str, int]:
        """Modules that this file can be imported as, and the address of each one's init function."""
        start = self.offset(self._tags.get("strtab", -1))
        if start is None:
            return {}
        size = self._tags.get("strsz", 0)
        names: set[int] = set()
        for prefix in (b"PyInit_", b"PyInitU_"):
            found = self.data.find(prefix, start, start + size)
            while found >= 0:
                names.add(found - start)
                if len(names) > _MOST_MODULES:
                    raise Unreadable(f"more than {_MOST_MODULES} modules in one file")
                found = self.data.find(prefix, found + 1, start + size)
        if not names:
            return {}
        found_here: dict[str, int] = {}
        for _, name, address in self._symbols():
            if name in names and self.executable(address):
                found_here.setdefault(self._string(name).partition("_")[2], address)
        return found_here

    # --------------------------------------------------------------------------------------------- relocations

    @cached_property
    def pointers(self) -> dict[int, int]:
        """What the loader writes into data: the address of the pointer and where in this file it points."""
        own = {index: address for index, _, address in self._symbols() if address}
        pointers: dict[int, int] = {}
        for address, info, addend in self._relocations():
            if info & 0xFFFFFFFF in _RELATIVE:
                pointers[address] = addend
            elif info >> 32 in own:
                pointers[address] = own[info >> 32] + addend
        return pointers

    def _relocations(self) -> Iterator[tuple[int, int, int]]:
        """Address, symbol and kind, addend."""
        for table, length in (("rela", "relasz"), ("jmprel", "pltrelsz")):
            start = self.offset(self._tags.get(table, -1))
            if start is None:
                continue
            size = min(self._tags.get(length, 0), len(self.data) - start) // 24 * 24
            if size > _MOST_POINTERS * 24:
                raise Unreadable(f"{size // 24:,} relocations, of which {_MOST_POINTERS:,} would be many")
            yield from struct.iter_unpack("<QQq", self.data[start : start + size])

    @cached_property
    def imports(self) -> dict[int, str]:
        """Where the loader writes the address of another file's function, and that function's name."""
        names = {index: name for index, name, address in self._symbols() if not address}
        return {place: self._string(names[info >> 32]) for place, info, _ in self._relocations() if info >> 32 in names}

    # ----------------------------------------------------------------------------------------------- functions

    @cached_property
    def functions(self) -> list[int]:
        """Where functions begin, in order: from the table that exception handling searches. It survives strip."""
        start = self._tags.get("eh_frame_hdr")
        if start is None:
            return []
        header = self.read(start, 12)
        # version 1, pointer to .eh_frame (4 bytes, relative), count (4 bytes), table (4 bytes, relative to the header)
        if len(header) < 12 or header[0] != 1 or header[1] & 0x0F not in (0x03, 0x0B) or header[2:4] != b"\x03\x3b":
            return []
        table = self.read(start + 12, min(int.from_bytes(header[8:12], "little"), _MOST_FUNCTIONS) * 8)
        return sorted({start + begin for begin, _ in struct.iter_unpack("<ii", table[: len(table) // 8 * 8])})


_TAGS = {5: "strtab", 6: "symtab", 7: "rela", 8: "relasz", 10: "strsz", 14: "soname", 2: "pltrelsz",
         23: "jmprel"}  # fmt: skip
# DT_PLTGOT, HASH, STRTAB, SYMTAB, RELA, REL, JMPREL, INIT_ARRAY, GNU_HASH, VERSYM, VERDEF, VERNEED
_PLACES = (3, 4, 5, 6, 7, 17, 23, 25, 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE)
_RELATIVE = (8, 1027)  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE


@cache
def _structs(bits: int, little: bool) -> ELFStructs:
    """Made once for each kind of file: an ELFFile makes them anew for each, 4 ms. No machine's own kinds of segment."""
    structs = ELFStructs(little, bits)
    structs.create_basic_structs()
    structs.create_advanced_structs()
    return structs


class _Stream:
    """Bytes as pyelftools wants to read them, without a copy of the file."""

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (self._at if whence == 1 else len(self._data) if whence == 2 else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else self._at + size
        found = bytes(self._data[self._at : end])
        self._at += len(found)
        return found
