"""A source string: every kind, every mistake, and no credential where somebody else reads."""

from __future__ import annotations

import ast
import string
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import camdock
from camdock.backends import BACKENDS
from camdock.source import HIDDEN, KINDS, Source, SourceInvalid, device_path, host_of, parse_sources, redact

# --- what is understood -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_every_kind_is_a_source_of_that_kind(kind: str) -> None:
    source = Source.parse(KINDS[kind].example)
    assert source.kind == kind
    assert source.text == KINDS[kind].example


def test_every_kind_has_a_backend_and_every_backend_a_kind() -> None:
    assert set(KINDS) == set(BACKENDS)


def imported_by(module: str, seen: set[str]) -> set[str]:
    """The libraries that a module of ours and those below it import, lazily too, by import name."""
    seen.add(module)
    found: set[str] = set()
    file = Path(camdock.__file__).parent.joinpath(*module.split(".")[1:])
    tree = ast.parse((file / "__init__.py" if file.is_dir() else file.with_suffix(".py")).read_text("utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        whole = [f"{node.module}.{name}" for name in names] if isinstance(node, ast.ImportFrom) else names
        for name in whole:
            ours = next((known for known in (name, name.rpartition(".")[0]) if is_ours(known)), None)
            if ours and ours not in seen:
                found |= imported_by(ours, seen)
            elif not name.startswith("camdock"):
                found.add(name.partition(".")[0])
    return found - sys.stdlib_module_names


def is_ours(name: str) -> bool:
    """Whether it is a module of ours, and no name in one."""
    place = Path(camdock.__file__).parent.joinpath(*name.split(".")[1:])
    return name.startswith("camdock.") and (place.is_dir() or place.with_suffix(".py").is_file())


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"auto"}))
def test_a_kind_names_every_library_that_its_worker_may_import(kind: str) -> None:
    needed = imported_by(BACKENDS[kind][0], {"camdock.worker"})
    if kind != "relay":  # its pictures are JPEG: worker.py never encodes them
        needed |= imported_by("camdock.imaging", set())
    assert set(KINDS[kind].loads) == needed


def test_auto_may_load_what_it_may_become() -> None:
    assert set(KINDS["auto"].loads) == {*KINDS["v4l2"].loads, *KINDS["synthetic"].loads}


@pytest.mark.parametrize(
    ("text", "kind", "target", "options"),
    [
        ("auto", "auto", "", {}),
        ("auto:", "auto", "", {}),
        ("auto?size=640x480", "auto", "", {"size": (640, 480)}),
        ("synthetic?label=a:b", "synthetic", "", {"label": "a:b"}),
        ("  synthetic:  ", "synthetic", "", {}),
        ("synthetic", "synthetic", "", {}),
        ("synthetic:?size=33x17", "synthetic", "", {"size": (33, 17)}),
        ("synthetic:?size=640X480&fps=2.5", "synthetic", "", {"size": (640, 480), "fps": 2.5}),
        ("synthetic:?format=yuv420&busy", "synthetic", "", {"format": "YUV420", "busy": True}),
        ("synthetic:?busy=0&denied=no", "synthetic", "", {"busy": False, "denied": False}),
        ("synthetic:?label=two%20words%26more", "synthetic", "", {"label": "two words&more"}),
        ("synthetic:?&fps=5&&", "synthetic", "", {"fps": 5.0}),
        ("v4l2:/dev/video0", "v4l2", "/dev/video0", {}),
        ("v4l2:0?format=mjpg&exposure_us=200&gain=1", "v4l2", "0", {"format": "MJPG", "exposure_us": 200, "gain": 1.0}),
        ("v4l2:usb-Logitech_C920-video-index0?quality=90", "v4l2", "usb-Logitech_C920-video-index0", {"quality": 90}),
        ("opencv:clip.mp4?fps=5", "opencv", "clip.mp4", {"fps": 5.0}),
        ("opencv:rtsp://h:554/s?a=1#backend=ffmpeg", "opencv", "rtsp://h:554/s?a=1", {"backend": "ffmpeg"}),
        ("opencv:file:///tmp/clip.mp4", "opencv", "file:///tmp/clip.mp4", {}),
        ("relay:http://h/?action=stream#fps=5", "relay", "http://h/?action=stream", {"fps": 5.0}),
        ("relay:HTTPS://[::1]:8000/stream#token=a%2Fb", "relay", "HTTPS://[::1]:8000/stream", {"token": "a/b"}),
        ("relay:http://u:p%40ss@h/", "relay", "http://u:p%40ss@h/", {}),
    ],
)
def test_a_source_is_understood(text: str, kind: str, target: str, options: dict[str, object]) -> None:
    source = Source.parse(text)
    assert (source.kind, source.target, dict(source.options)) == (kind, target, options)
    assert Source.parse(source.text) == source


# --- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a source is missing; for example v4l2:/dev/video0"),
        (":", "a source is missing"),
        ("/dev/video0", "lacks its kind: v4l2:/dev/video0"),
        ("0", "'0' lacks its kind: v4l2:0"),
        ("0?fps=5", "lacks its kind: v4l2:0?fps=5"),
        ("video0", "'video0' lacks its kind: v4l2:/dev/video0"),
        ("0zz", "there is no kind of source called '0zz'. Known: auto"),
        ("http://h/", "relay:http://h/ (MJPEG) or opencv:http://h/"),
        ("rtsp://h/", "lacks its kind: opencv:rtsp://h/"),
        ("v4l:/dev/video0", "did you mean v4l2:?"),
        ("sinthetic:", "did you mean synthetic:?"),
        ("zzz:", "called 'zzz'. Known: auto, synthetic, v4l2, opencv, relay"),
        ("atuo?fps=5", "called 'atuo'; did you mean auto:? Known: "),
        ("v4l2?fps=5", "lacks a device"),
        ("v4l2:", "lacks a device"),
        ("v4l2:?fps=5", "lacks a device"),
        ("relay:", "lacks an http:// or https:// address"),
        ("relay:/dev/video0", "needs an http:// or https:// address"),
        ("relay:rtsp://h/", "needs an http:// or https:// address"),
        ("relay:http://", "needs an http:// or https:// address"),
        ("relay:http:///path", "needs an http:// or https:// address"),
        ("relay:http://:80/", "needs an http:// or https:// address"),
        ("relay:http://h:port/", "relay: the port of the address must be a number from 1 to 65535"),
        ("relay:http://h:99999/stream", "relay: the port of the address must be a number from 1 to 65535"),
        ("relay:http://h:0/", "the port of the address must be"),
        ("relay:http://user:hunter2@h:99999/", "the port of the address must be"),
        ("relay:http://[::1]:x/", "the port of the address must be"),
        ("relay:http://user:123456/78@h/", "write / as %2F"),
        ("relay:http://user:123456#78@h/", "# as %23"),
        ("relay:http://[::1/", "cannot be split"),
        ("relay:http://\u2100:80/", "cannot be split"),
        ("opencv:rtsp://h:port/", "the port of the address must be"),
        ("pixelink:first", "'first' is no serial number; for example pixelink:775001234"),
        ("pixelink:0", "is no serial number"),
        ("pixelink:4294967296", "is no serial number"),
        ("pixelink:?simulate=maybe", "must be 1 or 0"),
        ("auto:/dev/video0", "nothing stands between auto: and its ?options"),
        ("synthetic:x", "nothing stands between synthetic: and its ?options"),
        ("synthetic:?size=640", "a size is WIDTHxHEIGHT, such as 1280x720"),
        ("synthetic:?size=15x480", "from 16 to 16384"),
        ("synthetic:?size=640x16385", "from 16 to 16384"),
        ("synthetic:?size=-640x480", "a size is WIDTHxHEIGHT"),
        ("synthetic:?fps=fast", "a number of frames per second is needed"),
        ("synthetic:?fps=0", "must be from 0.01 to 1000 frames per second"),
        ("synthetic:?fps=nan", "must be from 0.01"),
        ("synthetic:?fps=inf", "must be from 0.01"),
        ("synthetic:?quality=101", "from 1 to 100"),
        ("synthetic:?quality=80.5", "must be a whole number from 1 to 100"),
        ("synthetic:?quality=-1", "must be a whole number from 1 to 100"),
        ("synthetic:?crash_after=0", "must be a whole number from 1"),
        ("synthetic:?format=PNG", "must be one of JPEG, YUV420, RGB"),
        ("synthetic:?busy=perhaps", "must be 1 or 0"),
        ("synthetic:?label=", "must not be empty"),
        ("synthetic:?siez=640x480", "did you mean size?"),
        ("synthetic:?zzz=1", "has no option 'zzz'. Known: size, fps"),
        ("synthetic:?fps=5&fps=6", "is given fps twice"),
        ("v4l2:0?exposure_us=0", "from 1 to 3600000000"),
        ("v4l2:0?gain=-1", "from 0 to 10000"),
        ("relay:http://h/#size=640x480", "relay: has no option 'size'"),
    ],
)
def test_a_mistake_is_named_and_what_would_do_as_well(text: str, says: str) -> None:
    with pytest.raises(SourceInvalid) as caught:
        Source.parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "relay:?token=hunter2hunter2",
        "http://user:hunter2hunter2@h/",
        "rtsp://user:hunter2hunter2@h/",
        "relay:http://user:hunter2/hunter2@h/",
        "relay:http://user:hunter2#hunter2@h/",
        "relay:http://user:hunter2?hunter2@h/",
        "opencv:rtsp://user:hunter2/hunter2@h/",
        "/dev/video0?token=hunter2hunter2",
        "0?token=hunter2hunter2",
        "nothing?token=hunter2hunter2",
        "relay:http://user:hunter2@h:hunter2/",
    ],
)
def test_a_mistake_beside_a_password_does_not_show_it(text: str) -> None:
    with pytest.raises(SourceInvalid) as caught:
        Source.parse(text)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SourceInvalid) as caught:
        parse_sources(text)
    assert "hunter2" not in str(caught.value)


_PIECES = [
    *KINDS,
    ":",
    "?",
    "&",
    "=",
    "#",
    "://",
    "@",
    "[",
    "]",
    "%",
    "size=",
    "fps=",
    "http",
    "9" * 30,
    "²",
    "\0",
    "h",
]


@given(st.text(max_size=60) | st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
@example("relay:http://h:\uff11/")
@example("relay:http://\u2100/")
def test_arbitrary_text_is_a_source_or_invalid_and_nothing_else(text: str) -> None:
    try:
        source = Source.parse(text)
    except SourceInvalid:
        pass
    else:
        assert source.kind in KINDS
        assert isinstance(source.redacted, str)
        assert source.scrub("") == ""
        if source.kind == "relay":
            assert host_of(source.target) != "?"
        if source.kind == "v4l2":
            device_path(source.target)
    with suppress(SourceInvalid):
        assert parse_sources(text)


# --- several ----------------------------------------------------------------------------------------------------------


def test_several_sources_keep_their_order_and_their_names() -> None:
    sources = parse_sources(
        "front=v4l2:/dev/video0?fps=5   nest-2=synthetic:\n a_b=relay:http://h/?action=stream#fps=1"
    )
    assert list(sources) == ["front", "nest-2", "a_b"]
    assert [source.kind for source in sources.values()] == ["v4l2", "synthetic", "relay"]
    assert sources["a_b"].options == {"fps": 1.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (" ", "no camera is named"),
        ("synthetic:", "is not NAME=SOURCE"),
        ("Front=synthetic:", "is not NAME=SOURCE"),
        ("a/b=synthetic:", "is not NAME=SOURCE"),
        ("-a=synthetic:", "is not NAME=SOURCE"),
        ("a" * 41 + "=synthetic:", "is not NAME=SOURCE"),
        ("a=synthetic: a=auto", "two cameras are called 'a'"),
        ("a=synthetik:", "did you mean synthetic:?"),
        ("a=", "a source is missing"),
    ],
)
def test_a_mistake_in_several_sources_is_named(text: str, says: str) -> None:
    with pytest.raises(SourceInvalid) as caught:
        parse_sources(text)
    assert says in str(caught.value)


# --- devices and hosts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("0", "/dev/video0"),
        ("012", "/dev/video12"),
        ("/dev/video3", "/dev/video3"),
        ("usb-046d_HD_Webcam_C525-video-index0", "/dev/v4l/by-id/usb-046d_HD_Webcam_C525-video-index0"),
        ("pci-0000:00:14.0-usb-0:2:1.0-video-index0", "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0"),
        ("platform-fe801000.csi-video-index0", "/dev/v4l/by-path/platform-fe801000.csi-video-index0"),
        ("²", "/dev/v4l/by-id/²"),
    ],
)
def test_a_device_may_be_a_number_a_path_or_a_stable_name(target: str, path: str) -> None:
    assert device_path(target) == path
    assert Source.parse(f"v4l2:{target}?fps=5").target == target


def test_a_host_is_named_without_its_credentials() -> None:
    assert host_of("http://user:hunter2@cam.lan:8080/x?y") == "cam.lan:8080"
    assert host_of("http://user@cam.lan/") == "cam.lan"


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("relay:http://user:hunter2@h/?action=stream#fps=5", "relay:http://***@h/?action=stream#fps=5"),
        ("opencv:rtsp://hunter2@h/", "opencv:rtsp://***@h/"),
        ("relay:http://user:hunter2%40%2F%3A@h/", "relay:http://***@h/"),
        ("relay:http://user:hunter2@hunter2@h/", "relay:http://***@h/"),
        ("relay:http://h/stream#token=hunter2&fps=5", "relay:http://h/stream#token=***&fps=5"),
        ("relay:http://h/cgi?user=hunter2&pwd=hunter2&n=1", "relay:http://h/cgi?user=***&pwd=***&n=1"),
        ("relay:http://h/cgi?usr=hunter2;PASSWORD=hunter2", "relay:http://h/cgi?usr=***;PASSWORD=***"),
        ("relay:http://h/?api_key=hunter2&x-auth=hunter2", "relay:http://h/?api_key=***&x-auth=***"),
        ("relay:http://h/?access.token=hunter2", "relay:http://h/?access.token=***"),
        ("relay:http://h/?path=/a@b", "relay:http://h/?path=/a@b"),
        ("v4l2:/dev/video0?fps=5", "v4l2:/dev/video0?fps=5"),
    ],
)
def test_credentials_are_taken_out_of_what_is_shown(text: str, shown: str) -> None:
    assert Source.parse(text).redacted == shown if "cgi" not in text else redact(text) == shown
    assert "hunter2" not in repr(redact(text))


def test_a_log_line_with_several_addresses_keeps_none_of_their_passwords() -> None:
    line = "a=relay:http://u:hunter2@one/ b=opencv:rtsp://hunter2:x@two/ and http://three/?sig=hunter2"
    assert redact(line) == f"a=relay:http://{HIDDEN}@one/ b=opencv:rtsp://{HIDDEN}@two/ and http://three/?sig={HIDDEN}"


@pytest.mark.parametrize("password", ["hunter2", "p%40ss%2Fword", "%C3%A4%20%2B", "two:parts", "ä!"])
def test_a_driver_that_repeats_the_password_does_not_get_it_into_the_log(password: str) -> None:
    source = Source.parse(f"relay:http://user:{password}@h/")
    plain = unquote(password)
    for said in (password, plain, quote(plain, safe=""), quote(plain), f"user:{password}", f"user:{plain}"):
        assert source.scrub(f"401 for <{said}>") in (f"401 for <{HIDDEN}>", f"401 for <user:{HIDDEN}>"), said
        assert source.scrub(f"http://user:{said}@h/x is gone") == f"http://{HIDDEN}@h/x is gone", said


def test_a_token_of_the_options_is_a_secret_too() -> None:
    source = Source.parse("relay:http://h/#token=hunter2%2F9")
    assert source.scrub("Bearer hunter2/9, hunter2%2F9") == "Bearer ***, ***"


def test_a_secret_that_begins_with_another_is_hidden_whole() -> None:
    source = Source.parse("relay:http://user:hunter2@h/?x=1#token=hunter2-and-more")
    assert source.scrub("hunter2-and-more, hunter2") == "***, ***"


def test_an_empty_password_leaves_messages_readable() -> None:
    source = Source.parse("opencv:rtsp://admin:@h/")
    assert source.redacted == "opencv:rtsp://***@h/"
    assert source.scrub("no route to host") == "no route to host"


@given(st.text(alphabet=string.ascii_letters + string.digits + "%:!$.-", min_size=4, max_size=20))
def test_no_password_survives_in_any_form_that_is_shown(password: str) -> None:
    source = Source.parse(f"relay:http://u5er:{password}@h/")
    assert source.redacted == "relay:http://***@h/"
    assert password not in repr(source.redacted)
    assert source.scrub(f"[{password}]") != f"[{password}]"


def test_neither_repr_nor_text_of_a_source_is_needed_to_show_it() -> None:
    source = Source.parse("v4l2:/dev/video0?fps=5")
    assert "text" not in repr(source)


@pytest.mark.parametrize(
    ("text", "is_hardware"),
    [
        ("auto", True), ("v4l2:/dev/video0", True), ("opencv:0", True), ("opencv:/dev/video0", True),
        ("pixelink:", True),
        ("synthetic:", False), ("relay:http://camera/stream", False), ("opencv:rtsp://camera/", False),
    ],
)  # fmt: skip
def test_a_device_is_for_one_process_a_stream_or_a_file_for_all(text: str, is_hardware: bool, tmp_path: Path) -> None:
    assert Source.parse(text).is_hardware is is_hardware
    film = tmp_path / "film.avi"
    film.touch()
    assert not Source.parse(f"opencv:{film}").is_hardware


@pytest.mark.parametrize(
    ("text", "has_stand_in"),
    [
        ("auto", True), ("pixelink:", True), ("pixelink:5?simulate=1", True), ("pixelink:5?simulate=0", False),
        ("v4l2:/dev/video0", False), ("synthetic:", False),
    ],
)  # fmt: skip
def test_a_test_card_takes_the_place_of_an_absent_camera_where_that_was_meant(text: str, has_stand_in: bool) -> None:
    assert Source.parse(text).has_stand_in is has_stand_in
