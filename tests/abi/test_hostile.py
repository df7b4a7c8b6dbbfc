"""Files made to crash, to hang or to take memory: each ends in a verdict or in a clear error, and soon."""

import gzip
import re
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from camdock.abi import facts, reach, rules
from camdock.abi.check import check
from camdock.abi.elf import Elf, Unreadable
from camdock.abi.explain import explain
from camdock.abi.numpys import numpy_release
from camdock.abi.targets import TargetUnreadable
from tests.abi import examples, made, mutations

NUMPYS = [numpy_release(version) for version in ("1.19.5", "1.26.4", "2.2.0", "2.4.6")]
PAGE = 0x1000


def verdicts(data: bytes) -> set[str]:
    """What is said of a file by each NumPy; "unreadable" where it is refused."""
    began = time.process_time()
    try:
        read = facts.read_facts(data)
    except Unreadable as error:
        return {"unreadable" if str(error) else "refused without a word"}
    finally:
        assert time.process_time() - began < 2
    if read is None:
        return {"no ELF file"}
    return {rules.judge(read, [read], numpy).verdict for numpy in NUMPYS}


@pytest.fixture(params=["x86_64", "aarch64", "with sizes", "32 bits"])
def module(request: pytest.FixtureRequest) -> bytes:
    if request.param == "x86_64":
        return examples.module("-DLEVELS", "-Wl,-z,noseparate-code", "-Wl,-z,max-page-size=4096")
    if request.param == "32 bits":
        return narrow()
    return examples.kept("phases-aarch64" if request.param == "aarch64" else "sizes-aarch64")


def narrow() -> bytes:
    """A 32-bit relative of a module: its class and its headers, whatever this machine's compiler can make."""
    strings = b"\0PyInit_m\0" + b"numpy\0" + made.FOR_1.encode() + b"\0"
    header = struct.pack("<4s5B7xHHIIIIIHHHHHH", b"\x7fELF", 1, 1, 1, 0, 0, 3, 40, 1, 0, 52, 0, 0, 52, 32, 2, 40, 0, 0)
    size = 52 + 64 + 40 + 32 + len(strings)
    load = struct.pack("<8I", 1, 0, 0, 0, size, size, 5, PAGE)
    dynamic = struct.pack("<8I", 2, 116, 116, 116, 40, 40, 6, 4)
    tags = struct.pack("<10I", 5, 188, 6, 156, 10, len(strings), 11, 16, 0, 0)
    symbols = bytes(16) + struct.pack("<IIIBBH", 1, 188, 8, 18, 0, 1)
    return header + load + dynamic + tags + symbols + strings


def test_the_modules_are_what_they_seem(module: bytes) -> None:
    read = facts.read_facts(module)
    assert read is not None
    assert read.inits == ("m",)
    assert read.numpy


def test_cut_anywhere(module: bytes) -> None:
    """At the end of every structure, and in the middle of each; what lies behind the last segment is not needed."""
    loaded = max(segment.offset + segment.size for segment in Elf(module).segments)
    ends = {at + extra for at, size in mutations.elf_fields(module) for extra in (0, 1, size)}
    for end in sorted(end for end in ends | {0, 1, 3, 4, 5, 16, loaded - 1} if end < loaded):
        assert verdicts(module[:end]) <= {"unreadable", "no ELF file"}, end


@pytest.mark.parametrize("which", ["ends", pytest.param("between", marks=pytest.mark.slow)])
def test_every_number_set_to_extremes(module: bytes, which: str) -> None:
    allowed = {"ok", "breaks", "breaks-on-use", "hazard", "unknown", "unreadable", "no ELF file"}
    for at, size in sorted(set(mutations.elf_fields(module))):
        top = 1 << size * 8
        for value in (0, top - 1) if which == "ends" else (1, top // 2 - 1, top // 2, len(module) % top):
            other = module[:at] + value.to_bytes(size, "little") + module[at + size :]
            assert verdicts(other) <= allowed, (at, size, value)


# ------------------------------------------------------------------------------ files that cost more than they weigh


def built(
    content: bytes,
    dynamic: list[tuple[int, int]] = [],  # noqa: B006  never changed
    segments: list[tuple[int, int, int, int, int]] | None = None,
    functions: int | None = None,
    machine: int = 62,
) -> bytes:
    """A 64-bit file that is loaded at 0: header, segments, then `content` at 0x1000, then the dynamic segment.

    segments   further ones, as (type, flags, offset, address, bytes in the file)
    functions  address of the table of functions
    """
    content = content.ljust(-(-len(content) // 8) * 8, b"\0")
    tags = b"".join(struct.pack("<QQ", *entry) for entry in [*dynamic, (0, 0)])
    size = PAGE + len(content) + len(tags)
    wanted = [(1, 5, 0, 0, size), (2, 6, PAGE + len(content), PAGE + len(content), len(tags)), *(segments or [])]
    if functions is not None:
        wanted.append((0x6474E550, 4, functions, functions, 12))
    head = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 3, machine, 1, 0, 64, 0, 0, 64, 56, len(wanted), 64, 0, 0
    )
    for kind, flags, offset, address, length in wanted:
        head += struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, length, length, PAGE)
    assert len(head) <= PAGE
    return head.ljust(PAGE, b"\0") + content + tags


MODULE = b"\0PyInit_m\0"
SAYS = b"numpy\0_ARRAY_API\0PyModuleDef_Init\0" + made.FOR_1.encode() + b"\0"


def with_code(code: bytes, table: bytes = b"", text: bytes = SAYS, machine: int = 62) -> bytes:
    """A module whose init function is the beginning of `code`; `table`: of functions, 8 bytes each."""
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 18, 0, 1, PAGE, 8)
    names = len(code) + len(symbols)
    where = PAGE + names + len(MODULE) + len(text)
    table = table or struct.pack("<ii", PAGE - where, 0)
    header = b"\1\x1b\3\x3b" + struct.pack("<iI", 0, len(table) // 8)
    tags = [(6, PAGE + len(code)), (5, PAGE + names), (10, len(MODULE))]
    return built(code + symbols + MODULE + text + header + table, tags, functions=where, machine=machine)


def lea(count: int) -> bytes:
    """Code of nothing but `lea rax, [rip + 0]`."""
    return b"\x48\x8d\x05\0\0\0\0" * count


def too_many_symbols() -> bytes:
    content = MODULE.ljust(16, b"\0") + bytes(24) * (1 << 20) + bytes(24) * 8
    return built(content, [(5, PAGE), (6, PAGE + 16), (10, len(MODULE))])


def too_many_relocations() -> bytes:
    table = struct.pack("<QQq", 8, 8, 8) * ((1 << 20) + 8)
    code = with_code(b"\xff\x15\0\0\0\0".ljust(64, b"\xc3"))  # calls through one of them
    inner = code[PAGE : code.rindex(struct.pack("<QQ", 6, PAGE + 64))]
    tags = [(6, PAGE + 64), (5, PAGE + 64 + 48), (10, len(MODULE)), (7, PAGE + len(inner)), (8, len(table))]
    return built(inner + table, tags, functions=PAGE + inner.index(b"\1\x1b\3\x3b"))


REFUSED: dict[str, Callable[[], bytes]] = {
    "many segments": lambda: built(b"", segments=[(1, 4, 0, 0, 8)] * 64),
    "two dynamic segments": lambda: built(b"", [(5, PAGE)], [(2, 6, PAGE, PAGE, 32)]),
    "many symbols": too_many_symbols,
    "many relocations": too_many_relocations,
    "many modules": lambda: built(b"\0" + b"PyInit_\0" * 2000 + b"numpy", [(5, PAGE), (10, 16000)]),
    "many messages": lambda: built((facts._TARGET + b"1.23) \0") * 5000 + b"numpy"),
    "many comparisons": lambda: with_code(b"\x3d\x09\0\0\1" * 1000),
    "many references": lambda: with_code(
        b"".join(b"\x48\x8d\x05" + struct.pack("<i", 7 * 2000 - 7 * n + 48 + 10 + 34 - 7) for n in range(2000))
    ),
    "code twice": lambda: built(SAYS, segments=[(1, 5, 0, 1 << 20, PAGE + 64)]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_take_long_or_much_is_refused(name: str) -> None:
    data = REFUSED[name]()
    assert data.find(b"numpy") >= 0 or name in ("many segments", "two dynamic segments", "many symbols")
    assert verdicts(data) == {"unreadable"}


def test_a_loop_of_calls_ends() -> None:
    """A function that calls itself, and jumps into its middle."""
    code = b"\xe8\xfb\xff\xff\xff\xe9\xf8\xff\xff\xff\xc3"
    assert reach.fails_on_import(Elf(with_code(code)), {1}) is False


@pytest.mark.parametrize(
    ("machine", "word"),
    [
        pytest.param(62, b"\xe9\1\0\0\0", marks=pytest.mark.slow),
        (62, lea(1)),
        pytest.param(183, struct.pack("<I", 0x14000001), marks=pytest.mark.slow),
    ],
)
def test_code_that_never_ends_is_followed_so_far_and_no_further(machine: int, word: bytes) -> None:
    """Four megabytes in one function, of nothing but jumps or addresses: the answer is "not known"."""
    data = with_code(word * ((5 << 20) // len(word)), machine=machine)
    began = time.process_time()
    assert reach.fails_on_import(Elf(data), {1}) is None
    assert time.process_time() - began < 8


def test_a_table_of_four_billion_functions_ends_where_the_file_does() -> None:
    data = bytearray(with_code(b"\xc3" * 16))
    at = data.index(b"\1\x1b\3\x3b")
    data[at + 8 : at + 12] = b"\xff" * 4
    assert len(Elf(bytes(data)).functions) < 100


def test_strings_without_an_end() -> None:
    data = built(b"\0PyInit_" + b"m" * 20000, [(5, PAGE), (10, 1 << 60), (1, 1), (1, 1 << 60), (14, 2**64 - 1)])
    read = Elf(data)
    assert read.needed == ()
    assert read.soname == ""


def test_symbols_that_lie_in_themselves() -> None:
    """Symbols, strings and relocations all the same bytes, which point at each other."""
    content = struct.pack("<QQq", PAGE, 8, PAGE) * 64
    tags = [(5, PAGE), (6, PAGE), (7, PAGE), (8, len(content)), (23, PAGE), (2, len(content)), (10, len(content))]
    read = Elf(built(content, tags))
    assert read.pointers == {PAGE: PAGE}
    assert list(read.symbols()) == []


# ------------------------------------------------------------------------------------------ archives, records, logs


def judged(path: Path) -> None:
    began = time.process_time()
    with pytest.raises(TargetUnreadable):
        check(str(path), "2.2.0")
    assert time.process_time() - began < 2


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("within", [False, True], ids=["archive", "layer"])
def test_a_member_that_claims_to_have_gigabytes(tmp_path: Path, within: bool, packed: bool) -> None:
    """tarfile reads on to where it should end, ten kilobytes at a time."""
    info, _ = made.member("usr/lib/x.py")
    info.size = 60 << 30
    tar = info.tobuf(tarfile_format())
    path = tmp_path / "i.tar"
    if within:
        made.docker_archive(path, tar, packed=packed)
    else:
        path.write_bytes(gzip.compress(tar) if packed else tar)
    judged(path)


def tarfile_format() -> int:
    import tarfile

    return tarfile.GNU_FORMAT


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("module_name", ["bz2", "lzma"])
def test_archives_are_unpacked_only_as_docker_packs_them(tmp_path: Path, module_name: str) -> None:
    """bzip2 makes gigabytes of ten kilobytes at once; xz says itself how much memory it takes."""
    import importlib

    path = tmp_path / "i.tar"
    path.write_bytes(importlib.import_module(module_name).compress(bytes(1 << 20)))
    judged(path)


PROGRAM = r"""
import re, sys
from camdock.abi.check import check
from camdock.abi.targets import TargetUnreadable
try:
    report = check(sys.argv[1], "2.2.0")
    print(len(report.modules), end=" ")
except TargetUnreadable:
    print("refused", end=" ")
# not ru_maxrss: that one counts what the process that started this one had
print(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) >> 10)
"""


def memory(target: Path) -> tuple[str, int]:
    """What came of a target, and MB that the whole process took."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, target], capture_output=True, text=True, check=True, timeout=60
    )
    said, most = done.stdout.split()
    return said, int(most)


@pytest.mark.usefixtures("scratch")
def test_a_member_without_a_name(tmp_path: Path) -> None:
    path = made.wheel(tmp_path / "x.whl", {"n": b"", "m.so": made.compiled(made.FOR_1)})
    content = bytearray(path.read_bytes())
    for mark, length in ((b"PK\3\4", 26), (b"PK\1\2", 28)):  # a name of no length, and a comment or extra field of one
        at = content.index(mark) + length
        content[at : at + 4] = struct.pack("<HH", 0, 1)
    path.write_bytes(content)
    assert [one.file for one in check(str(path), "2.2.0").modules] == ["m.so"]


@pytest.mark.slow
def test_records_as_large_as_they_may_be_take_little_memory(tmp_path: Path) -> None:
    root = tmp_path / "root"
    made.dpkg(root, "python3-x", "1.0", [])
    site = root / "usr/lib/python3/dist-packages"
    made.write(root / "usr/lib/python3.11/os.py")
    made.module(site, "m.cpython-311-x86_64-linux-gnu.so", made.FOR_1)
    many = "".join(f"a{number}.so\n" for number in range(1_500_000))
    made.write(site / "y-1.0.dist-info/RECORD", "\U0001f4f7\n" + many)
    made.write(root / "var/lib/dpkg/info/python3-y.list", "\U0001f4f7\n" + many)
    made.write(root / "var/lib/dpkg/status", "\U0001f4f7\n" + "Package: x\nVersion: 1\n\n" * 2_500_000)
    made.write(root / "usr/conda-meta/z.json", "[" + "[]," * (5 << 20))
    made.numpy(site, "1.24.2")
    made.write(site / "numpy-1.24.2.dist-info/RECORD", many)
    said, most = memory(root)
    assert said == "2"
    assert most < 300


@pytest.mark.slow
def test_a_file_at_every_limit_at_once_takes_little_memory(tmp_path: Path) -> None:
    count = (1 << 20) - 16
    code = b"\xe8\0\0\0\0\x48\x8d\x05\0\0\0\0" * 300_000
    symbols = b"".join(struct.pack("<IBBHQQ", 1, 18, 0, 1, PAGE + number, 8) for number in range(count))
    relocations = b"".join(struct.pack("<QQq", number * 8, 8, number) for number in range(count))
    parts = [code, symbols, MODULE + SAYS, relocations]
    begins = [PAGE + sum(map(len, parts[:number])) for number in range(5)]
    table = b"".join(struct.pack("<ii", PAGE + 3 * number - begins[4], 0) for number in range(count))
    header = b"\1\x1b\3\x3b" + struct.pack("<iI", 0, count)
    tags = [(6, begins[1]), (5, begins[2]), (10, len(MODULE)), (7, begins[3]), (8, len(relocations)), (4, begins[2])]
    made.write(tmp_path / "m.so", built(b"".join([*parts, header, table]), tags, functions=begins[4]))
    said, most = memory(tmp_path / "m.so")
    assert said == "1"
    assert most < 300


@pytest.mark.slow
@pytest.mark.parametrize("machine", [62, 183])
def test_a_gigabyte_of_code_is_no_hang(tmp_path: Path, machine: int) -> None:
    word = b"\x48\x8d\x05\1\0\0\0\x90" if machine == 62 else struct.pack("<I", 0x90000000)
    made.write(tmp_path / "m.so", with_code(word * ((500 << 20) // len(word)), machine=machine))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said, most = memory(tmp_path / "m.so")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said in ("1", "refused")
    assert most < 300
    assert after.ru_utime - before.ru_utime < 40


def lines() -> Iterator[str]:
    """Each text of `explain`'s tables, over and over: what a pattern that tries everything would take years for."""
    from camdock.abi import logs, messages, tracebacks

    words = [
        "File ",
        'File "',
        "from ",
        "import ",
        "import_module(",
        "(most recent call",
        " | ",
        "\x1b[",
        "Error",
        "a.",
        "1",
    ]
    for owner in (logs, messages, tracebacks):
        for value in vars(owner).values():
            if isinstance(value, re.Pattern):
                words += re.findall(r"[A-Za-z_ ]{6,40}", value.pattern)
    words += [re.sub(r"\\.|[\[\](){}?*+|^$]", "", message.pattern.pattern) for message in messages.MESSAGES]
    return (word * (100_000 // max(len(word), 1)) for word in dict.fromkeys(words))


def test_no_log_takes_long_to_read() -> None:
    for line in lines():
        began = time.process_time()
        explain([line, line[:8000]])
        assert time.process_time() - began < 1, line[:60]


def test_a_module_begins_in_code() -> None:
    """PyInit_m as the name of something else makes no module."""
    content = bytes(24) + struct.pack("<IBBHQQ", 1, 17, 0, 1, 1 << 40, 8) + MODULE
    assert Elf(built(content, [(6, PAGE), (5, PAGE + 48), (10, len(MODULE))])).inits == {}
    content = bytes(24) + struct.pack("<IBBHQQ", 1, 18, 0, 1, PAGE, 8) + MODULE
    assert Elf(built(content, [(6, PAGE), (5, PAGE + 48), (10, len(MODULE))])).inits == {"m": PAGE}


def test_what_the_loader_writes() -> None:
    """By a symbol and a number, or by a number alone: R_X86_64_RELATIVE, R_AARCH64_RELATIVE."""
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 18, 0, 1, PAGE, 8)
    entries = [(8, 1 << 32 | 1, 4), (16, 8, 99), (24, 1027, 98), (32, 2 << 32 | 1, 7)]
    table = b"".join(struct.pack("<QQq", *entry) for entry in entries)
    begins = (PAGE + 48, PAGE + 48 + 24)  # one in the procedure linkage table's own, the rest in the other
    tags = [
        (6, PAGE),
        (5, PAGE + 48 + len(table)),
        (10, len(MODULE)),
        (23, begins[0]),
        (2, 24),
        (7, begins[1]),
        (8, 72),
    ]
    assert Elf(built(symbols + table + MODULE, tags)).pointers == {8: PAGE + 4, 16: 99, 24: 98}


def test_a_function_that_a_table_hands_over_asks_on_import() -> None:
    read = facts.read_facts(examples.kept("phases-aarch64"))
    assert read is not None
    assert read.on_import is True
