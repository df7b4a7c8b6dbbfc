"""What people and other programs are told."""

import json
from xml.etree import ElementTree

import pytest

from camdock.abi.allowed import Allowed, Entry
from camdock.abi.check import Module, Report
from camdock.abi.findings import Finding
from camdock.abi.report import Unread, as_json, as_junit, as_sarif, as_table
from camdock.abi.rules import RULES

NASTY = "a\x1b[31m\x00b\udcff.so"
REPORT = Report(
    "venv",
    "2.2.0",
    [
        Module("p/a.so", "p.a", "breaks", "built-for-1", "headers of NumPy 1.x", "p 1.0", "python -m pip install -U p"),
        Module("p/b.so", "p.b", "breaks", "built-for-1", "headers of NumPy 1.x", "p 1.0", "python -m pip install -U p"),
        Module("q.so", "q", "hazard", "unchecked", "arrays by pybind11 before 2.12"),
        Module(NASTY, NASTY, "unknown", "unreadable", "truncated"),
        Module("r.so", "r", "ok", "fits", "for 1.23 and later"),
        Module("s.so", "s", "ok", "no-numpy", ""),
    ],
    [Finding("second-numpy", "two of them", "rm -r it"), Finding("editable-hook", "a hook")],
)
CLEAN = Report("other", None, [Module("s.so", "s", "ok", "no-numpy", "")])


def test_json_has_exactly_the_agreed_shape() -> None:
    said = json.loads(as_json([REPORT]))
    assert list(said) == ["numpy", "modules", "findings"]
    assert said["numpy"] == "2.2.0"
    assert said["modules"][0] == {
        "file": "p/a.so",
        "module": "p.a",
        "verdict": "breaks",
        "rule": "built-for-1",
        "evidence": "headers of NumPy 1.x",
        "package": "p 1.0",
        "fix": "python -m pip install -U p",
    }
    assert len(said["modules"]) == 6, "what is ok is listed too"
    assert said["findings"][0] == {"rule": "second-numpy", "message": "two of them", "fix": "rm -r it"}


def test_several_targets_are_listed() -> None:
    said = json.loads(as_json([REPORT, CLEAN]))
    assert [(one["target"], one["numpy"]) for one in said["targets"]] == [("venv", "2.2.0"), ("other", None)]
    assert list(said["targets"][0]) == ["target", "numpy", "modules", "findings"]


def test_the_table_says_the_worst_first_and_counts_what_is_right() -> None:
    text = as_table([REPORT])
    assert text.index("p.a") < text.index("arrays by pybind11") < text.index("truncated") < text.index("two of them")
    assert text.count("fix: python -m pip install -U p") == 1, "once for the package"
    assert "2 breaks, 1 hazard, 1 unknown, 1 finding, 2 ok (1 of them do not use NumPy); --all lists them" in " ".join(
        text.split()
    )
    assert "ok  r" not in text
    assert "ok  r" in as_table([REPORT], everything=True)


def test_the_table_fits_and_a_target_cannot_speak_to_the_terminal() -> None:
    long = Report("v", "2.2.0", [Module("x.so", "x", "hazard", "unchecked", "many words of evidence " * 20)])
    for report in (REPORT, long):
        text = as_table([report])
        assert all(len(line) <= 80 for line in text.splitlines())
        assert "\x1b" not in text
        assert "\0" not in text
    assert "a\\x1b[31m\\x00b\\udcff.so" in as_table([REPORT])
    coloured = as_table([REPORT], colour=True)
    assert "\x1b[31;1mBREAKS" in coloured
    assert "\x1b[31m" not in coloured.replace("\x1b[31;1m", ""), "but for our own"


def test_sarif_has_what_its_standard_requires() -> None:
    said = json.loads(as_sarif([REPORT, CLEAN]))
    assert said["version"] == "2.1.0"
    assert said["$schema"].endswith("sarif-schema-2.1.0.json")
    first, second = said["runs"]
    rules = first["tool"]["driver"]["rules"]
    assert first["tool"]["driver"]["name"]
    assert [rule["id"] for rule in rules] == list(RULES)
    assert all(rule["shortDescription"]["text"] and rule["fullDescription"]["text"] for rule in rules)
    assert second["results"] == []
    assert [(one["ruleId"], one["level"]) for one in first["results"]] == [
        ("built-for-1", "error"),
        ("built-for-1", "error"),
        ("unchecked", "warning"),
        ("unreadable", "warning"),
        ("second-numpy", "warning"),
        ("editable-hook", "note"),
    ]
    for result in first["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
    uris = [
        one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for one in first["results"]
        if "locations" in one
    ]
    assert uris == ["p/a.so", "p/b.so", "q.so", "a%1B%5B31m%00b%FF.so"]


def test_junit_can_be_parsed_and_counts_rightly() -> None:
    root = ElementTree.fromstring(as_junit([REPORT, CLEAN]))
    first, second = root.findall("testsuite")
    assert {key: first.get(key) for key in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "venv",
        "tests": "8",
        "failures": "4",
        "errors": "0",
        "skipped": "1",
    }
    assert len(first.findall("testcase")) == 8
    assert len(first.findall("testcase/failure")) == 4
    assert second.get("failures") == "0"
    failure = first.find("testcase/failure")
    assert failure is not None
    assert failure.text == "To mend it: python -m pip install -U p"


@pytest.mark.parametrize("report", [REPORT, CLEAN])
def test_every_report_is_text_that_can_be_written(report: Report) -> None:
    for text in (as_json([report]), as_sarif([report]), as_junit([report]), as_table([report], everything=True)):
        assert text.encode()


def accepted() -> Allowed:
    return Allowed([Entry("p", None, None, "not used"), Entry(None, None, "second-numpy", "both are 2.x")])


def test_what_is_accepted_is_told_with_its_reason_in_every_format() -> None:
    text = as_table([REPORT], accepted())
    assert text.count("accepted: not used") == text.count("accepted: both are 2.x") == 1
    assert "3 of these accepted" in text
    assert "accepted" not in as_table([REPORT])

    said = json.loads(as_json([REPORT], accepted()))
    assert [one.get("accepted") for one in said["modules"]] == ["not used", "not used", None, None, None, None]
    assert [one.get("accepted") for one in said["findings"]] == ["both are 2.x", None]

    results = json.loads(as_sarif([REPORT], accepted()))["runs"][0]["results"]
    reasons = [[one["justification"] for one in result.get("suppressions", [])] for result in results]
    assert reasons == [["not used"], ["not used"], [], [], ["both are 2.x"], []]
    assert results[0]["suppressions"][0]["kind"] == "external"

    suite = ElementTree.fromstring(as_junit([REPORT], accepted()))[0]
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "4")
    assert "accepted: not used (" in suite.findall("testcase/skipped")[0].get("message", "")


def test_a_target_that_could_not_be_read_is_in_every_machines_report() -> None:
    results = [Unread("gone", "gone is not there"), REPORT]
    assert json.loads(as_json(results))["targets"][0] == {"target": "gone", "error": "gone is not there"}
    run = json.loads(as_sarif(results))["runs"][0]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"] == "gone is not there"
    suite = ElementTree.fromstring(as_junit(results))[0]
    assert (suite.get("errors"), suite.get("tests")) == ("1", "1")
    assert as_table(results) == as_table([REPORT])


def test_the_same_path_of_two_targets_is_two_places_in_sarif() -> None:
    module = Module("lib/a.so", "a", "breaks", "built-for-1", "")
    above = Module("/usr/lib/b.so", "b", "breaks", "built-for-1", "")
    reports = [
        Report("v 1", "2.2.0", [module, above], folder="/srv/root/v 1", system="/srv/root"),
        Report("v2", "2.2.0", [module], folder="/v2", system="/"),
        Report("image:1", "2.2.0", [module]),
    ]
    runs = json.loads(as_sarif(reports))["runs"]
    places = []
    for run in runs:
        for result in run["results"]:
            place = result["locations"][0]["physicalLocation"]["artifactLocation"]
            base = run["originalUriBaseIds"][place["uriBaseId"]].get("uri", "-/") if "uriBaseId" in place else ""
            places.append(base + place["uri"])
    assert places == [
        "file:///srv/root/v%201/lib/a.so", "file:///srv/root/usr/lib/b.so", "file:///v2/lib/a.so", "-/lib/a.so",
    ]  # fmt: skip
    assert len({run["automationDetails"]["id"] for run in runs}) == 3
    bases = [name for run in runs for name in run["originalUriBaseIds"]]
    assert len(set(bases)) == 3, "also for who merges the runs"
