"""What is read from machine code, on modules compiled for it with NumPy's own headers and several compilers."""

import functools
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from camdock.abi.elf import Elf
from camdock.abi.facts import Facts, read_facts
from camdock.abi.instructions import number
from camdock.abi.numpys import numpy_release
from camdock.abi.rules import judge
from tests.abi.wheelhouse import fetched
from tests.tools.packages import needed

SOURCES = Path(__file__).parent / "sources"
LEVELS = {"1.19.5": 0x0D, "1.22.4": 0x0F, "1.24.4": 0x10, "1.26.4": 0x0D}  # 1.25 and 1.26 compile for 1.16 by default
HEADERS = {
    "1.19.5": "numpy-1.19.5-cp39-cp39-manylinux2010_x86_64.whl",
    "1.22.4": "numpy-1.22.4-cp39-cp39-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "1.24.4": "numpy-1.24.4-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "1.26.4": "numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
}

Compile = Callable[..., Facts]


@pytest.fixture(scope="session")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where the headers of a NumPy release are; "" is the installed one's."""

    @functools.cache
    def find(version: str) -> Path:
        if not version:
            asked = [sys.executable, "-c", "import numpy; print(numpy.get_include())"]
            return Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
        folder = tmp_path_factory.getbasetemp() / f"headers-{version}"
        if not folder.exists():
            with zipfile.ZipFile(fetched([HEADERS[version]])[HEADERS[version]]) as wheel:
                wheel.extractall(folder, [name for name in wheel.namelist() if "/include/" in name])
        return folder / "numpy" / "core" / "include"

    return find


@pytest.fixture
def compile_module(tmp_path: Path, headers: Callable[[str], Path]) -> Compile:
    """Compiles one of `sources` and reads it."""

    def compiled(source: str, *options: str, compiler: str = "gcc", version: str = "") -> Facts:
        output = tmp_path / "m.so"
        include = [f"-I{sysconfig.get_path('include')}", f"-I{headers(version)}"]
        command = [*compiler.split(), "-w", "-shared", "-fPIC", "-s", *include, *options, "-o", output]
        file = SOURCES / source if "." in source else SOURCES / f"{source}.c"
        subprocess.run([*command, file], check=True)
        facts = read_facts(output.read_bytes())
        assert facts is not None
        return facts

    return compiled


@pytest.mark.parametrize(
    ("source", "on_import"),
    [("eager", True), ("phases", True), ("split", True), ("lazy", False), ("heedless", False)],
)
def test_whether_importing_fails_where_numpy_refuses(compile_module: Compile, source: str, on_import: bool) -> None:
    facts = compile_module(source, "-O2")
    assert (facts.on_import, facts.headers, facts.inits) == (on_import, 2, ("m",))
    old = numpy_release("1.19.5")
    assert judge(facts, [], old).verdict == ("breaks" if on_import else "breaks-on-use")
    assert judge(facts, [], numpy_release("2.2.0")).verdict == "ok"


@needed("g++")
@pytest.mark.slow
@pytest.mark.parametrize("options", ["-O0", "-O2", "-Os"])
def test_a_refusal_that_is_thrown_is_not_let_fall(compile_module: Compile, options: str) -> None:
    assert compile_module("throws.cpp", options, compiler="g++").on_import is True


def test_code_that_cannot_be_followed_is_not_called_late(compile_module: Compile) -> None:
    if sysconfig.get_platform() != "linux-x86_64":
        pytest.skip("the large code model's addresses are another matter on other machines")
    facts = compile_module("lazy", "-O2", "-mcmodel=large")
    assert facts.on_import is None
    assert judge(facts, [], numpy_release("1.19.5")).verdict == "breaks"


@pytest.mark.parametrize(("target", "release"), [("0x0000000d", "1.16"), ("0x00000010", "1.23"), ("0x00000013", "2.1")])
def test_the_target_of_headers_of_2(compile_module: Compile, target: str, release: str) -> None:
    facts = compile_module("eager", "-O1", f"-DNPY_TARGET_VERSION={target}")
    assert facts.targets == (release,)
    level = int(target, 16)
    for version in ("1.19.5", "1.24.4", "2.0.2", "2.2.0"):
        numpy = numpy_release(version)
        judgement = judge(facts, [], numpy)
        assert (judgement.verdict == "ok") == (numpy.promise.feature >= level), version
        assert judgement.needs == release


@needed("clang")
@needed("aarch64-linux-gnu-gcc")
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options", [("-O0",), ("-O1",), ("-O2",), ("-O3",), ("-Os",), ("-O2", "-fno-plt")], ids=" ".join
)
@pytest.mark.parametrize("compiler", ["gcc", "clang", "aarch64-linux-gnu-gcc", "clang --target=aarch64-linux-gnu"])
def test_the_level_of_headers_of_1_whatever_compiled_it(
    compile_module: Compile, compiler: str, options: tuple[str, ...]
) -> None:
    for version, level in LEVELS.items():
        for source in ("eager", "lazy", "phases", "split", "heedless"):
            facts = compile_module(source, *options, compiler=compiler, version=version)
            read = (facts.headers, facts.levels, facts.on_import)
            late = source in ("lazy", "heedless")
            assert read == (1, (level,), not late), (version, source)
            older = numpy_release("1.15.4" if level == 0x0D else "1.20.3")
            refuses = "breaks-on-use" if late else "breaks"
            assert judge(facts, [], older).rule == "numpy-too-old"
            assert judge(facts, [], older).verdict == refuses
            assert judge(facts, [], numpy_release("1.26.4")).verdict == "ok"
            assert judge(facts, [], numpy_release("2.0.2")).verdict == refuses
            assert judge(facts, [], numpy_release("2.0.2")).rule == "built-for-1"


def test_a_machine_whose_code_is_not_decoded_is_never_called_fitting(compile_module: Compile, tmp_path: Path) -> None:
    compile_module("eager", "-O1")
    data = bytearray((tmp_path / "m.so").read_bytes())
    data[18] = 243  # RISC-V, with the same texts in it
    facts = read_facts(bytes(data))
    assert facts is not None
    assert not facts.decoded
    assert judge(facts, [], numpy_release("2.2.0")).verdict == "unknown"
    assert judge(facts, [], numpy_release("1.19.5")).verdict == "breaks"  # the text alone proves it


def test_symbols_and_links(compile_module: Compile, tmp_path: Path) -> None:
    facts = compile_module("split", "-O1", "-Wl,-soname,libsplit.so", "-Wl,--no-as-needed", "-lm")
    assert facts.soname == "libsplit.so"
    assert "libm.so.6" in facts.needed
    elf = Elf((tmp_path / "m.so").read_bytes())
    names = {symbol: address for _, symbol, address in elf.symbols()}
    assert {"PyInit_m", "make", "ask"} <= names.keys()
    assert elf.inits == {"m": names["PyInit_m"]}
    assert set(elf.inits.values()) <= set(elf.functions)


@pytest.mark.parametrize(
    ("operands", "value"), [("eax, 0x10", 16), ("w0, #0xc", 12), ("rax, 96", 96), ("eax, ecx", None), ("", None)]
)
def test_the_number_that_ends_operands(operands: str, value: int | None) -> None:
    assert number(operands) == value
