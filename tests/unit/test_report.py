"""The doctor's report: everything in a line, what is wrong at the end, nothing that a device could smuggle in."""

from __future__ import annotations

import json

from camdock.doctor.report import Check, Status, as_json, as_text, worst

FINE = Check("abi", Status.OK, "all fits")
ODD = Check("kernel", Status.WARNING, "a line", "`dmesg`", {"lines": ["1 s ago: it says"]})
UNKNOWN = Check("holders", Status.UNKNOWN, "3 others")
WRONG = Check("camera.front", Status.BAD, "it is held by pid 812 (guvcview)", "stop that program")


def test_only_bad_is_wrong_and_it_is_numbered_with_what_mends_it() -> None:
    assert worst([FINE, UNKNOWN, ODD, WRONG]) is Status.BAD
    assert worst([FINE, UNKNOWN, ODD]) is Status.WARNING
    assert worst([FINE, UNKNOWN]) is Status.UNKNOWN
    assert worst([]) is Status.OK
    text = as_text([FINE, WRONG, ODD, UNKNOWN], 1.23)
    assert "BAD      camera.front  it is held by pid 812 (guvcview)\n" in text
    assert "\nWrong:\n1. it is held by pid 812 (guvcview).\n   -> stop that program\n" in text
    assert "\nWorth a look:\n1. a line.\n   -> `dmesg`\n" in text
    assert "1 s ago: it says" in text
    assert "\nNot found out:\n1. 3 others.\n" in text
    assert "Nothing is wrong" not in text
    assert "\nNothing is wrong.\n" in as_text([FINE, ODD], 1.0)


def test_names_of_devices_stay_on_their_line() -> None:
    evil = Check("devices", Status.BAD, "cam\n\x1b[2Jera", "a\nb", {"lines": ["x\x07y"]})
    text = as_text([evil], 1.0)
    assert "cam ?[2Jera" in text
    assert "x?y" in text
    assert "\x1b" not in text


def test_programs_get_the_same_with_stable_keys() -> None:
    document = json.loads(as_json([FINE, WRONG], 1.234))
    assert (document["status"], document["took_s"]) == ("bad", 1.23)
    assert document["checks"][1] == {
        "name": "camera.front", "status": "bad", "what": WRONG.what, "hint": WRONG.hint, "details": {}
    }  # fmt: skip
