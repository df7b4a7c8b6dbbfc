"""Source: where pictures come from, as one string. What each kind of source is called and which options it takes.

Runs in: every process. Knows no driver: the API process checks a source before any worker runs.

    v4l2:/dev/video0?size=1280x720&fps=30        kind : target ? options
    relay:http://host/?action=stream#fps=5       a target that is itself a URL takes its options after #
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "***"
LARGEST_SIDE = 16384  # pixels; beyond this a JPEG decoder refuses anyway (65500) and memory is the limit
LARGEST_SERIAL = 2**32 - 1  # of a PixeLINK camera: its SDK has 32 bits for it


class SourceInvalid(ValueError):
    """A source string that cannot be understood; the message says what is wrong with which part, and what would do."""


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match:
        raise ValueError("a size is WIDTHxHEIGHT, such as 1280x720")
    width, height = int(match[1]), int(match[2])
    if not (16 <= width <= LARGEST_SIDE and 16 <= height <= LARGEST_SIDE):
        raise ValueError(f"both sides must be from 16 to {LARGEST_SIDE} pixels")
    return width, height


# What reads an option's text, and in words what it takes.
Reader = tuple[Callable[[str], Any], str]


def _number(low: float, high: float, unit: str) -> Reader:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"a number of {unit} is needed") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g} {unit}")
        return value

    return parse, f"{low:g} to {high:g}"


def _whole(low: int, high: int, unit: str) -> Reader:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high} ({unit})")
        return int(text)

    return parse, f"{low} to {high}"


def _one_of(*names: str) -> Reader:
    def parse(text: str) -> str:
        for name in names:
            if name.lower() == text.lower():
                return name
        raise ValueError("must be one of " + ", ".join(names))

    return parse, ", ".join(names)


_DIOPTRES = _number(0, 32, "dioptres")


def _focus(text: str) -> str | float:
    if text in ("once", "continuous"):
        return text
    try:
        return float(_DIOPTRES[0](text))
    except ValueError:
        raise ValueError("must be once, continuous, or dioptres from 0 (infinity) to 32") from None


def _yes(text: str) -> bool:
    if text.lower() in ("", "1", "yes", "true", "on"):
        return True
    if text.lower() in ("0", "no", "false", "off"):
        return False
    raise ValueError("must be 1 or 0")


def _text(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


_SWITCH: Reader = _yes, "1 or 0"
_WORDS: Reader = _text, ""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a source: how its text is read, and what `--help` says of it.

    values  what it may be, in words; empty where the help says it
    """

    parse: Callable[[str], Any]
    values: str
    help: str

    @property
    def is_fault(self) -> bool:
        """Whether it spoils something, to try the service with."""
        return self.help.startswith("fault: ")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of source: a line of the table in `--help` and README."""

    example: str
    help: str
    target: str  # what stands behind the colon, in words; empty when nothing may
    options: Mapping[str, Option]
    loads: tuple[str, ...]  # the libraries that its worker may import, by import name; judged before it is started
    needs_target: bool = True
    extra: str = ""  # the extra of pyproject.toml that installs its library


_SIZE = Option(
    _size,
    f"16 to {LARGEST_SIDE} each",
    "width x height in pixels, e.g. 1280x720; the nearest that the camera offers is taken",
)
_FPS = Option(*_number(0.01, 1000, "frames per second"), "frames per second")
_QUALITY = Option(
    *_whole(1, 100, "JPEG quality"), "JPEG quality for pictures that the camera does not encode; without it 80"
)
_EXPOSURE = Option(*_whole(1, 3_600_000_000, "microseconds"), "exposure time in microseconds; turns auto exposure off")
_GAIN = Option(*_number(0, 10_000, "times"), "gain as a linear factor, 1.0 = none")
_SETTLE = Option(
    *_whole(0, 1000, "pictures"),
    "pictures thrown away before a still, when the camera was just opened or its settings were just changed",
)
_AFTER = _whole(1, 10**9, "frames")


def _after(what: str) -> Option:
    return Option(*_AFTER, f"fault: after so many frames: {what}")


_IMAGING = ("numpy", "simplejpeg", "PIL")  # what imaging and lettering import: where the device gives pixels

KINDS: dict[str, Kind] = {
    "auto": Kind(
        "auto",
        "the first camera of this machine; without one a test card that says so, until a camera appears",
        "",
        {"size": _SIZE, "fps": _FPS, "settle_frames": _SETTLE},
        ("linuxpy", *_IMAGING),
        needs_target=False,
    ),
    "synthetic": Kind(
        "synthetic:?size=640x480&fps=30",
        "a moving test card with its number and a clock drawn in, and faults to try the service with",
        "",
        {
            "size": _SIZE,
            "fps": _FPS,
            "format": Option(
                *_one_of("JPEG", "YUV420", "RGB"),
                "what the make-believe camera delivers; without it JPEG, for stills pixels",
            ),
            "quality": _QUALITY,
            "settle_frames": _SETTLE,
            "label": Option(*_WORDS, "a line of text on the card"),
            "hang_after": _after("it hangs for ever: SIGTERM blocked, GIL held"),
            "crash_after": _after("SIGSEGV"),
            "half_frame_after": _after("half a frame, then the process ends"),
            "garbage_after": _after("bytes that are no message"),
            "error_after": _after("an orderly error"),
            "stall_after": _after("no more frames, though the driver still answers"),
            "stop_after": _after("SIGSTOP"),
            "kill_after": _after("SIGKILL"),
            "in_flight": Option(
                *_whole(0, 100, "pictures"),
                "fault: settings show so many pictures late; the exposure of each is drawn in below its bars",
            ),
            "remembers": Option(
                *_WORDS, "a file that keeps its settings over its processes, as V4L2 devices keep theirs"
            ),
            "hang_still": Option(*_SWITCH, "fault: a still hangs for ever"),
            "crash_still": Option(*_SWITCH, "fault: a still ends in SIGSEGV"),
            "error_still": Option(*_SWITCH, "fault: a still ends in an orderly error"),
            "hang_open": Option(*_SWITCH, "fault: opening hangs for ever"),
            "busy": Option(*_SWITCH, "fault: another process holds it"),
            "denied": Option(*_SWITCH, "fault: no permission"),
            "gone": Option(*_WORDS, "fault: unplugged while this file exists"),
            "spawn": Option(*_SWITCH, "fault: starts a child process, as some drivers do"),
            "chatter": Option(*_SWITCH, "fault: floods its log"),
            "block_on": Option(*_WORDS, "fault: a read of this file blocks in the kernel, behind the first picture"),
            "block_after": Option(*_whole(0, 10**9, "frames"), "fault: block_on= blocks behind so many frames instead"),
        },
        _IMAGING,
        needs_target=False,
    ),
    "v4l2": Kind(
        "v4l2:/dev/video0?size=1280x720&fps=30&format=MJPG",
        "a Linux camera: USB webcams, capture cards",
        "a device: /dev/video0, 0, or a name of /dev/v4l/by-id",
        {
            "size": _SIZE,
            "fps": _FPS,
            "format": Option(
                *_one_of("MJPG", "JPEG", "YUYV", "UYVY", "NV12", "YU12", "YV12", "GREY", "RGB3", "BGR3"),
                "pixel format; without it MJPG where the camera has it, else the best other",
            ),
            "quality": _QUALITY,
            "exposure_us": _EXPOSURE,
            "gain": _GAIN,
            "settle_frames": _SETTLE,
        },
        ("linuxpy", *_IMAGING),
        extra="v4l2",
    ),
    "opencv": Kind(
        "opencv:rtsp://host/stream#backend=ffmpeg",
        "whatever OpenCV opens: a camera's number, a video file (looped), an RTSP or HTTP address",
        "a camera's number, a file, or an address",
        {
            "size": _SIZE,
            "fps": _FPS,
            "quality": _QUALITY,
            "settle_frames": _SETTLE,
            "backend": Option(
                *_one_of("auto", "v4l2", "ffmpeg", "gstreamer"), "OpenCV's video back end; without it auto"
            ),
        },
        ("cv2", *_IMAGING),
        extra="opencv",
    ),
    "relay": Kind(
        "relay:http://user:password@host/?action=stream#fps=5",
        "an MJPEG address elsewhere, passed on without decoding; another Camdock included",
        "an http:// or https:// address",
        {
            "fps": Option(_FPS.parse, _FPS.values, "take at most so many pictures per second"),
            "settle_frames": _SETTLE,
            "token": Option(*_WORDS, "sent as `Authorization: Bearer`"),
        },
        ("requests", "urllib3"),  # its pictures are passed on as they come: no NumPy
        extra="relay",
    ),
    "pixelink": Kind(
        "pixelink:?exposure_us=10000",
        "a PixeLINK camera, the first one or by its serial number; without one, or without the SDK, a test card",
        "a serial number",
        {
            "size": Option(
                _size, _SIZE.values, "size of the region of interest in its middle; without it as the camera has it"
            ),
            "fps": _FPS,
            "quality": _QUALITY,
            "exposure_us": _EXPOSURE,
            "gain": _GAIN,
            "settle_frames": _SETTLE,
            "simulate": Option(*_SWITCH, "whether a test card stands in for it, or the error is told; without it 1"),
        },
        ("pixelinkWrapper", *_IMAGING),
        needs_target=False,
        extra="pixelink",
    ),
    "picamera2": Kind(
        "picamera2:0?size=1280x720&fps=30",
        "a camera on a Raspberry Pi's ribbon cable",
        "a camera's number, libcamera's id of it, or its model: 0, imx708",
        {
            "size": _SIZE,
            "fps": _FPS,
            "format": Option(
                *_one_of("YUV420", "RGB888"), "what the camera's processor gives; without it YUV420, which costs least"
            ),
            "encoder": Option(
                *_one_of("auto", "software", "hardware"),
                "who makes the JPEG; without it auto, which takes the hardware's where there is one",
            ),
            "quality": _QUALITY,
            "exposure_us": _EXPOSURE,
            "gain": _GAIN,
            "hflip": Option(*_SWITCH, "mirrored, left and right"),
            "vflip": Option(*_SWITCH, "upside down; with hflip=1 turned by half"),
            "awb": Option(
                *_one_of("auto", "incandescent", "tungsten", "fluorescent", "indoor", "daylight", "cloudy"),
                "white balance, where the camera has it; without it auto",
            ),
            "focus": Option(
                _focus, "", "where the lens moves: once, continuous, or dioptres: 0 infinity, 2 half a metre"
            ),
            "hdr": Option(*_one_of("off", "single", "multi", "night"), "high dynamic range, where the machine has it"),
        },
        ("picamera2", "libcamera", *_IMAGING),
        extra="picamera2",
    ),
}

_SECRET_QUERY = re.compile(
    r"(?i)([?&#;](?:[\w.-]*(?:token|passw|pwd|secret|key|auth|sig)[\w.-]*|pass|user|usr)=)([^&#;\s]+)"
)
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)([^/?#\s]+)@")


@dataclass(frozen=True, slots=True)
class Source:
    """One source, understood.

    kind     a key of KINDS
    target   what stands behind the colon, options taken off
    options  the options given, as values
    text     the string it came from: may carry credentials, so it is for the worker only
    """

    kind: str
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    text: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read a source string; raises SourceInvalid with what is wrong and what would be right."""
        text = text.strip()
        if (bare := re.match(r"([a-z0-9]+)\?", text)) and bare[1] in KINDS:  # auto?fps=5 can only mean auto:?fps=5
            text = f"{bare[1]}:{text[bare.end(1) :]}"
        kind, colon, rest = text.partition(":")
        if kind not in KINDS:
            raise SourceInvalid(_unknown_kind(kind, text))
        known = KINDS[kind]
        is_url = re.match(r"(?i)[a-z][a-z0-9+.-]*://", rest) is not None
        target, _, query = rest.partition("#" if is_url else "?")
        if not target and known.needs_target:
            raise SourceInvalid(f"the source {redact(text)!r} lacks {known.target}; for example {known.example}")
        if is_url and not _is_address(target):
            raise SourceInvalid(f"{kind}: {_no_address(rest)}")
        if target and not known.target:
            raise SourceInvalid(f"nothing stands between {kind}: and its ?options; for example {known.example}")
        if kind == "relay" and not (re.match(r"(?i)https?://", target) and urlsplit(target).hostname):
            raise SourceInvalid(f"relay: needs an http:// or https:// address; for example {known.example}")
        if (
            kind == "pixelink"
            and target
            and not (target.isascii() and target.isdecimal() and 0 < int(target) <= LARGEST_SERIAL)
        ):
            raise SourceInvalid(f"pixelink: {target[:60]!r} is no serial number; for example pixelink:775001234")
        return cls(kind, target, _options(kind, known, query), text if colon else kind)

    def with_serial(self, serial: int) -> Source:
        """The same, and where it is the first PixeLINK camera the one of that serial number."""
        if self.kind != "pixelink" or self.target:
            return self
        return Source.parse(f"pixelink:{serial}?{self.text.partition('?')[2]}".rstrip("?"))

    @property
    def has_stand_in(self) -> bool:
        """Whether a test card takes its place while there is no camera."""
        return self.kind == "auto" or (self.kind == "pixelink" and bool(self.options.get("simulate", True)))

    @property
    def is_hardware(self) -> bool:
        """Whether it is a device, which one process alone can have; a stream or a file is everybody's."""
        if self.kind == "opencv":
            return "://" not in self.target and not Path(self.target).is_file()
        return self.kind not in ("synthetic", "relay")

    @property
    def redacted(self) -> str:
        """The source for logs and answers: no password, no token."""
        return redact(self.text)

    @property
    def secrets(self) -> frozenset[str]:
        """Every credential that stands in the string, raw and decoded."""
        found = {match[2] for match in _SECRET_QUERY.finditer(self.text)}
        found |= {
            secret for match in _USERINFO.finditer(self.text) for secret in (match[2], match[2].partition(":")[2])
        }
        found |= {unquote(secret) for secret in found}
        found |= {
            quote(secret, safe) for secret in found for safe in ("", "/")
        }  # as libraries write it into an address
        return frozenset(filter(None, found))

    def scrub(self, message: str) -> str:
        """`message` (a driver's, say) with the credentials of this source taken out."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            message = message.replace(secret, HIDDEN)
        return redact(message)


def redact(text: str) -> str:
    """Text with the credentials of every address in it replaced by three stars."""
    return _SECRET_QUERY.sub(rf"\1{HIDDEN}", _USERINFO.sub(rf"\1{HIDDEN}@", text))


def _unknown_kind(kind: str, text: str) -> str:
    kind = kind.partition("?")[0]
    if not kind:
        return "a source is missing; for example " + KINDS["v4l2"].example
    if kind.startswith("/dev/") or re.match(r"\d+(\?|$)", text):
        return f"{redact(text)!r} lacks its kind: v4l2:{redact(text)}"
    if re.match(r"video\d+(\?|$)", text):
        return f"{redact(text)!r} lacks its kind: v4l2:/dev/{redact(text)}"
    if kind in ("http", "https"):
        return f"{redact(text)!r} lacks its kind: relay:{redact(text)} (MJPEG) or opencv:{redact(text)} (anything else)"
    if kind in ("rtsp", "file"):
        return f"{redact(text)!r} lacks its kind: opencv:{redact(text)}"
    near = difflib.get_close_matches(kind, KINDS, 1)
    meant = f"; did you mean {near[0]}:?" if near else "."
    return f"there is no kind of source called {kind!r}{meant} Known: {', '.join(KINDS)}"


def _is_address(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


def _no_address(rest: str) -> str:
    """What is wrong with an address that is none, nothing of it repeated: what looks like a port may be a password."""
    place = re.match(r"[^/]*//([^/?#]*)", rest)
    host, at, behind = (place[1], "@" in place[1], rest[place.end() :]) if place else ("", False, "")
    port = re.search(r":([^:\]]*)$", host.rpartition("@")[2])
    if port and (at or "@" not in behind) and not (re.fullmatch(r"\d{1,5}", port[1]) and 0 < int(port[1]) < 65536):
        return "the port of the address must be a number from 1 to 65535"
    return (
        "the address cannot be split into host, port and path; in a user or a password write / as %2F, ? as %3F, "
        "# as %23, @ as %40"
    )


def _options(kind: str, known: Kind, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        option = known.options.get(name)
        if option is None:
            near = difflib.get_close_matches(name, known.options, 1)
            meant = f"; did you mean {near[0]}?" if near else "."
            raise SourceInvalid(f"{kind}: has no option {name!r}{meant} Known: {', '.join(known.options)}")
        if name in options:
            raise SourceInvalid(f"{kind}: is given {name} twice")
        try:
            options[name] = option.parse(unquote(value))
        except ValueError as error:
            raise SourceInvalid(f"{kind}: {name}={unquote(value)[:60]}: {error}") from None
    return options


_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


def parse_sources(text: str) -> dict[str, Source]:
    """Several named sources: "front=v4l2:/dev/video0 nest=synthetic:"; the first is the default camera."""
    sources: dict[str, Source] = {}
    for item in text.split():
        name, equals, source = item.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise SourceInvalid(
                f"{redact(item.partition('://')[0])!r} is not NAME=SOURCE (a name has small letters, digits, - and _); "
                'for example CAMDOCK_SOURCES="front=v4l2:/dev/video0 nest=synthetic:"'
            )
        if name in sources:
            raise SourceInvalid(f"two cameras are called {name!r}")
        sources[name] = Source.parse(source)
    if not sources:
        raise SourceInvalid('no camera is named; for example CAMDOCK_SOURCES="front=v4l2:/dev/video0"')
    return sources


def device_path(target: str) -> str:
    """The path of a V4L2 device given as a path, as a number, or as a name of /dev/v4l/by-id (by-path too)."""
    if target.isdecimal():
        return f"/dev/video{int(target)}"
    if target.startswith("/"):
        return target
    folder = "by-path" if target.startswith(("pci-", "platform-")) else "by-id"
    return f"/dev/v4l/{folder}/{target}"


def host_of(url: str) -> str:
    """host[:port] of an address, without credentials: what an error may name."""
    parts = urlsplit(url)
    return (parts.hostname or "?") + (f":{parts.port}" if parts.port else "")
