"""Judged without importing anything, compared with what happened when the same files were imported."""

import json
import lzma
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from camdock.abi.check import Module, judge_target
from camdock.abi.closure import Readings
from camdock.abi.numpys import numpy_release
from camdock.abi.targets import open_target
from tests.abi.wheelhouse import fetched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

HERE = Path(__file__).parent / "record"


@cache
def record() -> list[dict[str, str]]:
    with lzma.open(HERE / "imports.jsonl.xz", "rt") as lines:
        return [json.loads(line) for line in lines]


def verdicts(wheel: Path, numpys: list[str]) -> Iterator[tuple[str, dict[str, Module]]]:
    """The verdicts on a wheel's modules, by their files, for each NumPy."""
    with open_target(str(wheel)) as target:
        readings = Readings(target.tree)
        for numpy in numpys:
            report = judge_target(target, numpy_release(numpy), readings=readings)
            yield numpy, {module.file: module for module in report.modules}


def test_the_record_of_real_imports() -> None:
    wheels: dict[str, list[dict[str, str]]] = defaultdict(list)
    for line in record():
        wheels[line["wheel"]].append(line)
    counted: Counter[str] = Counter()
    wrong: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, path in fetched(wheels).items():
        numpys = sorted({line["numpy"] for line in wheels[name]})
        judged = dict(verdicts(path, numpys))
        for line in wheels[name]:
            if line["abi_verdict"] == "none":  # something else was missing before NumPy was asked
                counted["not comparable"] += 1
                continue
            module = judged[line["numpy"]][line["file"]]
            kind = compared(module, line)
            counted[kind] += 1
            if kind in ("missed", "false alarm", "undecided"):
                wrong[kind, name, line["file"], module.evidence, line["message"] or ""].append(line["numpy"])
    found, alarms = counted["found"], counted["found"] + counted["late, as it is"] + counted["false alarm"]
    print(f"\n{len(wheels)} wheels, {len(record())} imports: {dict(counted)}")
    print(f"recall {found / (found + counted['missed']):.3f}, ", end="")
    print(f"precision {(alarms - counted['false alarm']) / alarms:.3f}")
    for reason, numpys in wrong.items():
        print(*reason, "NumPy", *numpys)
    assert found == 674
    assert counted["missed"] == 0
    assert counted["undecided"] == 0
    assert counted["false alarm"] / alarms <= 0.01
    assert counted["late, as it is"] > 0


def compared(module: Module, line: dict[str, str]) -> str:
    if line["abi_verdict"] == "abi_fail":
        return "found" if module.verdict == "breaks" else "missed"
    if module.verdict == "breaks-on-use":
        return "late, as it is" if line.get("lazy_import_array") else "false alarm"
    return {"breaks": "false alarm", "unknown": "undecided"}.get(module.verdict, "right")


def test_the_same_wheels_for_aarch64_get_the_same_verdicts() -> None:
    twins = {key(name): name for name in HERE.joinpath("aarch64.txt").read_text().split()}
    ours = {key(name): name for name in {line["wheel"] for line in record()}}
    pairs = [(ours[which], twins[which]) for which in sorted(ours.keys() & twins.keys())]
    assert len(pairs) == len(twins) == 130
    paths = fetched([name for pair in pairs for name in pair])
    numpys = ["1.19.5", "1.22.4", "1.24.4", "1.26.4", "2.0.2", "2.2.0", "2.4.6"]
    counted: Counter[str] = Counter()
    for here, there in pairs:
        for (numpy, x86), (_, arm) in zip(verdicts(paths[here], numpys), verdicts(paths[there], numpys), strict=True):
            arm_by_name = {plain(file): module for file, module in arm.items()}
            for file, module in x86.items():
                other = arm_by_name.get(plain(file))
                if other is not None:  # some wheels have modules for the one machine only
                    counted[module.verdict] += 1
                    assert (module.verdict, module.rule) == (other.verdict, other.rule), (there, file, numpy)
    print(f"\n{len(pairs)} pairs of wheels, verdicts: {dict(counted)}")
    assert min(counted[verdict] for verdict in ("ok", "breaks", "breaks-on-use", "hazard")) > 0


def key(wheel: str) -> tuple[str, str, str]:
    name, version, _, abi, _ = wheel.removesuffix(".whl").split("-")
    return name.lower(), version, abi


def plain(file: str) -> str:
    return re.sub(r"\.(cpython-\d+-\S*|abi3)?\.?so$", "", file)


@pytest.mark.parametrize(
    "name",
    [
        "onnxruntime-1.16.3-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "onnxruntime-1.16.3-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
    ],
)
def test_a_refusal_that_is_let_fall_breaks_on_first_use(name: str) -> None:
    """Not in the record: it imports with NumPy 2, prints what is wrong, and goes on; running a model then crashes."""
    for numpy, modules in verdicts(fetched([name])[name], ["1.26.4", "2.2.0"]):
        (module,) = [module for file, module in modules.items() if "onnxruntime_pybind11_state" in file]
        assert module.verdict == ("ok" if numpy == "1.26.4" else "breaks-on-use")
