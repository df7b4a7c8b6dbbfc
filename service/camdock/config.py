"""Config: every environment variable, its default, its unit; from `.env` too. Read once at start, frozen.

Runs in: the API process.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from camdock import tls
from camdock.proxies import Network
from camdock.source import LARGEST_SERIAL, Source, SourceInvalid, parse_sources

DEFAULT_CAMERA = "camera"
LONGEST_LINE = 4096  # bytes of a token's file: what is longer is something else
GOOD_ENOUGH = "8 or more printable ASCII characters without spaces"
LONGEST_SHOWN = 300  # characters of a value that is refused: a path may be long
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]", "*.localhost")
# Fields that say the same in two ways: the environment's way leaves nothing for the other one in `.env` to say.
EITHER = (("source", "sources"), ("token", "token_file"), ("viewer_token", "viewer_token_file"))


class ConfigInvalid(Exception):
    """The configuration cannot be used; each line of the message names a variable, what is wrong and what would do.

    fields  the fields of Config that it is about; empty where it is about none of them
    """

    def __init__(self, message: str, fields: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.fields = frozenset(fields)


class _Beneath(PydanticBaseSettingsSource):
    """What `.env` says, without what the environment has said already in the other way."""

    def __init__(self, settings_cls: type[BaseSettings], file: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._file = file

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """One field's value, as `.env` has it."""
        return self._file.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """All that it says, by field or variable."""
        said = {name for pair in EITHER if not self.current_state.keys().isdisjoint(pair) for name in pair}
        return {name: value for name, value in self._file().items() if name not in said}


class Config(BaseSettings):
    """The configuration. Every field is one environment variable: CAMDOCK_ and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="CAMDOCK_", frozen=True, extra="ignore", env_ignore_empty=True)

    source: str = Field(
        "auto", repr=False, description="where the pictures come from, for one camera", examples=["v4l2:/dev/video0"]
    )
    sources: str = Field(
        "", repr=False, description="several cameras, as NAME=SOURCE with spaces between; instead of CAMDOCK_SOURCE",
        examples=["front=v4l2:/dev/video0 nest=synthetic:"],
    )  # fmt: skip
    host: str = Field(
        "127.0.0.1", validation_alias=AliasChoices("CAMDOCK_HOST", "HOST"),
        description="address to listen on; anything but loopback needs CAMDOCK_TOKEN or CAMDOCK_AUTH=off",
    )  # fmt: skip
    port: int = Field(
        8000, ge=1, le=65535, validation_alias=AliasChoices("CAMDOCK_PORT", "PORT"), description="TCP port to listen on"
    )
    token: SecretStr | None = Field(
        None, description="who sends it (`Authorization: Bearer`, or ?token=) may look and touch; 8 characters or more"
    )
    token_file: SecretStr | None = Field(
        None, description="file whose first line is the token, instead of CAMDOCK_TOKEN, which other programs may see",
        examples=["/etc/camdock/token"],
    )  # fmt: skip
    viewer_token: SecretStr | None = Field(
        None, description="a second token: who sends it may look and not touch; needs CAMDOCK_TOKEN beside it"
    )
    viewer_token_file: SecretStr | None = Field(
        None, description="file whose first line is the viewers' token, instead of CAMDOCK_VIEWER_TOKEN",
        examples=["/etc/camdock/viewer-token"],
    )  # fmt: skip
    login_days: float = Field(30.0, gt=0, le=400, description="days that a browser stays logged in")
    auth: Literal["on", "off"] = Field("on", description="off: everybody who reaches the port may look and touch")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names in the Host header that are answered, and no others, with commas between, `*.` for all "
        "below, `*` for any; without it on loopback the loopback names, elsewhere any",
        examples=["camera.example.org,localhost"],
    )  # fmt: skip
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed",
        examples=["127.0.0.1,10.0.0.0/8"],
    )  # fmt: skip
    tls_cert: Path | None = Field(
        None, description="file with the certificate, its chain behind it (PEM): the port then speaks https alone; "
        "read at start", examples=["/etc/camdock/tls.crt"],
    )  # fmt: skip
    tls_key: Path | None = Field(None, description="file with that certificate's key (PEM)")
    state_dir: Path | None = Field(
        None, description="folder that keeps the wanted settings of every camera; empty: $XDG_STATE_HOME/camdock"
    )
    captures_dir: Path | None = Field(
        None, validation_alias=AliasChoices("CAMDOCK_CAPTURES_DIR", "IMAGE_SAVE_PATH"),
        description="folder that keeps captures; empty: `captures` in the state folder",
    )  # fmt: skip
    captures_max_bytes: int = Field(
        0, ge=0, description="bytes that captures may take before the oldest are deleted; 0 = never"
    )
    captures_max_age_days: float = Field(
        0.0, ge=0, le=36500, description="days after which captures are deleted; 0 = never"
    )
    image_format: Literal["JPG", "PNG", "TIFF"] = Field(
        "JPG", validation_alias=AliasChoices("CAMDOCK_IMAGE_FORMAT", "IMAGE_FORMAT"),
        description="what captures are saved as; a JPEG that the camera makes itself is kept as it is for JPG",
    )  # fmt: skip
    image_quality: int = Field(
        95, ge=1, le=100, validation_alias=AliasChoices("CAMDOCK_IMAGE_QUALITY", "IMAGE_QUALITY"),
        description="JPEG quality of captures that the camera does not encode itself",
    )  # fmt: skip
    default_exposure_us: int | None = Field(
        None, ge=1, le=3_600_000_000,
        validation_alias=AliasChoices("CAMDOCK_DEFAULT_EXPOSURE_US", "DEFAULT_EXPOSURE"),
        description="exposure in microseconds of a camera whose settings were never changed here",
    )  # fmt: skip
    default_gain: float | None = Field(
        None, ge=0, le=10_000, allow_inf_nan=False,
        validation_alias=AliasChoices("CAMDOCK_DEFAULT_GAIN", "DEFAULT_GAIN"),
        description="gain of such a camera as a linear factor, 1.0 = none",
    )  # fmt: skip
    camera_serial_number: int | None = Field(
        None, ge=0, le=LARGEST_SERIAL,
        validation_alias=AliasChoices("CAMDOCK_CAMERA_SERIAL_NUMBER", "CAMERA_SERIAL_NUMBER"),
        description="serial number of the camera that `pixelink:` means; empty: the first one. Where no source is "
        "given, it is that camera",
    )  # fmt: skip
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), validation_alias=AliasChoices("CAMDOCK_ALLOWED_ORIGINS", "ALLOWED_ORIGINS"),
        description="other websites whose pages may call the API (CORS) and change something here, with commas "
        "between; `*` for any",
        examples=["http://localhost:5173,https://lab.example.org"],
    )  # fmt: skip
    linger_s: float = Field(
        10.0, ge=0, le=86400,
        description="seconds after which a camera that nobody looks at is given back, until somebody does; 0 = never",
    )  # fmt: skip
    open_timeout_s: float = Field(5.0, ge=0.5, le=300, description="seconds a source may take to open")
    send_timeout_s: float = Field(
        10.0,
        ge=0.5,
        le=3600,
        description="seconds a viewer, or who asked for a file, may take nothing before it is dropped",
    )
    upload_max_bytes: int = Field(
        20_000_000, ge=1000, le=100_000_000, description="bytes of a picture that is sent to POST /images/process"
    )
    upload_max_pixels: int = Field(
        50_000_000, ge=1000, le=200_000_000,
        description="pixels of such a picture, and of what is made of it; 16 bytes of memory each",
    )  # fmt: skip
    vision: Literal["on", "off"] = Field(
        "off", description="on: POST /images/annotate may send pictures to Google Cloud Vision"
    )
    vision_endpoint: str = Field(
        "",
        description="another host than Google's own, `http://` and a port for one without TLS and credentials",
        examples=["eu-vision.googleapis.com"],
    )  # fmt: skip
    abi: Literal["check", "off"] = Field(
        "check",
        description="check: start no camera whose libraries break with the installed NumPy; off: start it even then",
    )
    abi_cache: Path | None = Field(
        None, description="file that keeps what the check found; empty: $XDG_CACHE_HOME/camdock/abi.json"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much is logged")
    debug: bool = Field(
        False, validation_alias=AliasChoices("CAMDOCK_DEBUG", "DEBUG"),
        description="true: CAMDOCK_LOG_LEVEL is debug where it is not set",
    )  # fmt: skip

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where values come from, the strongest first."""
        return init_settings, env_settings, _Beneath(settings_cls, dotenv_settings)

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = tuple(filter(None, (part.strip().lower() for part in value.split(","))))
        for name in names:
            if not re.fullmatch(r"\*|(\*\.)?[^\s/:*@\[\]]+|\[[0-9a-f:.]+\]", name):
                raise ValueError(
                    f"{name!r} is not how a host is named here: camera.example.org, *.example.org, 192.168.1.5 or "
                    "[fd00::5], without http:// and path, and without a port: every port is answered"
                )
        return names

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        try:
            return tuple(map(ipaddress.ip_network, _parts(value))) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(f"{error}; give addresses or networks with commas between, like 10.0.0.0/8") from None

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = _parts(value)
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+", origin):
                raise ValueError(f"{origin!r} is no origin; http://localhost:5173 would be one, without a path")
        return origins

    @field_validator("vision_endpoint")
    @classmethod
    def _host(cls, value: str) -> str:
        if value and not re.fullmatch(r"(?:http://)?[A-Za-z0-9.-]+(?::[0-9]+)?", value):
            raise ValueError(
                "must be the name of a host without https:// and path, like eu-vision.googleapis.com, or "
                "http://HOST:PORT for one without TLS and credentials"
            )
        return value

    @field_validator("image_format", mode="before")
    @classmethod
    def _format(cls, value: object) -> object:
        name = value.strip().lstrip(".").upper() if isinstance(value, str) else value
        return {"JPEG": "JPG", "TIF": "TIFF"}.get(str(name), name)

    @field_validator("default_exposure_us", mode="before")
    @classmethod
    def _rounded(cls, value: object) -> object:
        try:
            return round(float(value)) if isinstance(value, str) else value  # 100000.0, as the lab camera had it
        except (ValueError, OverflowError):
            return value

    @field_validator("debug", mode="before")
    @classmethod
    def _is_debug(cls, value: object) -> object:
        # Whatever else DEBUG means to other programs is nothing to us.
        return value.strip().lower() in ("1", "true", "yes", "on") if isinstance(value, str) else value

    @field_validator("log_level", "auth", "abi", "vision", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("token", "viewer_token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_token(value.get_secret_value()):
            raise ValueError(f"needs {GOOD_ENOUGH}; `openssl rand -hex 16` makes a good one")
        return value

    # Before, and not after: pydantic keeps the input of what fails, which must be the file's name and not its content.
    @field_validator("token_file", "viewer_token_file", mode="before")
    @classmethod
    def _in_file(cls, value: object) -> object:
        return SecretStr(_token_in(value)) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> Config:
        for pair in EITHER:
            if self.model_fields_set.issuperset(pair):
                one, other = (name for field in pair for name in names_of(field))
                raise ValueError(f"{one} and {other} are both set in {_place(one, other)}: give the one or the other")
        self._check_viewers()
        if (self.tls_cert is None) != (self.tls_key is None):
            lacking = "KEY" if self.tls_key is None else "CERT"
            raise ValueError(f"CAMDOCK_TLS_{lacking} is missing: a certificate and its key are given together")
        if self.tls_cert is not None and self.tls_key is not None:
            tls.check(self.tls_cert, self.tls_key)
        try:
            _ = self.cameras
        except SourceInvalid as error:
            raise ValueError(f"CAMDOCK_{'SOURCES' if self.sources else 'SOURCE'}: {error}") from None
        if not self.is_loopback and self.auth == "on" and self.secret is None:
            raise ValueError(
                f"listening on {self.host} opens the cameras to the network, so nothing was started.\n"
                "  Either set CAMDOCK_TOKEN to a secret (clients then send it: `openssl rand -hex 16` makes one)\n"
                "  or CAMDOCK_TOKEN_FILE to a file with one in its first line,\n"
                "  or set CAMDOCK_AUTH=off if everybody who reaches this port may look and touch."
            )
        return self

    def _check_viewers(self) -> None:
        if self.viewer_secret is None or self.auth == "off":
            return
        if self.secret is None:
            raise ValueError(
                "CAMDOCK_VIEWER_TOKEN alone would leave nobody who may change anything: set CAMDOCK_TOKEN as well, to "
                "another secret"
            )
        if self.secret.get_secret_value() == self.viewer_secret.get_secret_value():
            raise ValueError(
                "CAMDOCK_VIEWER_TOKEN is the same as CAMDOCK_TOKEN: whoever looks could touch. Give it another value"
            )

    @property
    def viewer_secret(self) -> SecretStr | None:
        """The viewers' token, wherever it was given; None when there is none."""
        return self.viewer_token or self.viewer_token_file

    @property
    def secret(self) -> SecretStr | None:
        """The token, wherever it was given; None when there is none."""
        return self.token or self.token_file

    @property
    def cameras(self) -> dict[str, Source]:
        """Every camera's source by its name; the first is the default one."""
        serial = self.camera_serial_number
        if self.sources:
            cameras = parse_sources(self.sources)
        elif serial and "source" not in self.model_fields_set:  # the lab camera service knew no other
            cameras = {DEFAULT_CAMERA: Source.parse("pixelink:")}
        else:
            cameras = {DEFAULT_CAMERA: Source.parse(self.source)}
        return {name: source.with_serial(serial) if serial else source for name, source in cameras.items()}

    @property
    def remarks(self) -> list[str]:
        """What can be used, and is probably not what was meant: a sentence each."""
        serial = self.camera_serial_number
        if not serial or any(one.kind == "pixelink" and one.target == str(serial) for one in self.cameras.values()):
            return []
        return [f"CAMERA_SERIAL_NUMBER={serial} has no effect: no source is `pixelink:` without a number of its own"]

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the port."""
        if self.host.lower() == "localhost":
            return True
        try:
            address = ipaddress.ip_address(self.host.strip("[]"))
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, opaque to Python before 3.12.4
        return bool((mapped or address).is_loopback)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Patterns that a Host header must match; ("*",) where any will do."""
        return self.allowed_hosts or ((*LOOPBACK_NAMES, self.host.lower()) if self.is_loopback else ("*",))

    def settings_path(self, camera: str) -> Path:
        """Where the wanted settings of one camera are kept."""
        return (self.state_dir or _own_folder("XDG_STATE_HOME", "~/.local/state")) / f"{camera}.json"

    @property
    def captures_path(self) -> Path:
        """Where captures are kept, as an absolute path: answers name it."""
        return (self.captures_dir or self.settings_path("").parent / "captures").absolute()

    @property
    def level(self) -> str:
        """How much is logged."""
        return "debug" if self.debug and "log_level" not in self.model_fields_set else self.log_level

    @property
    def abi_cache_path(self) -> Path | None:
        """Where the answers of the check at start are kept; None for a user without a home."""
        try:
            return self.abi_cache or _own_folder("XDG_CACHE_HOME", "~/.cache") / "abi.json"
        except RuntimeError:
            return None


def _parts(text: str) -> tuple[str, ...]:
    """What stands between commas; an origin has no slash at its end."""
    return tuple(filter(None, (part.strip().lower().rstrip("/") for part in text.split(","))))


def _is_token(text: str) -> bool:
    return len(text) >= 8 and text.isascii() and text.isprintable() and " " not in text


def _is_path(text: str) -> bool:
    """Whether it is a path beyond doubt: what else is given as a token's file may be the token, and is not repeated."""
    return text.startswith(("/", "./", "../", "~"))


def _token_in(path: str) -> str:
    """The token in the first line of a file. Raises ValueError: what is wrong, what to do, nothing of the content."""
    name, user = shlex.quote(path) if _is_path(path) else "FILE", os.geteuid()
    make = f"`umask 077; openssl rand -hex 16 > {name}` makes a good one, for the service's user ({user}) alone to read"
    # What is there may be anything: no command that would write over it.
    instead = "name another file, with a token in its first line: `openssl rand -hex 16` prints one"
    try:
        with Path(path).open("rb") as file:
            line = file.readline(LONGEST_LINE)
            is_empty = stat.S_ISREG(os.fstat(file.fileno()).st_mode) and not (line.strip() or file.read(1))
    except FileNotFoundError:
        raise ValueError(f"there is no such file; {make}") from None
    except PermissionError:
        raise ValueError(
            f"the service's user ({user}) may not read it, or not enter its folder: `chown {user} {name}`"
        ) from None
    except IsADirectoryError:
        raise ValueError("is a folder; name a file in it whose first line is the token") from None
    except (OSError, ValueError) as error:  # a name with a null in it
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}; name another file") from None
    token = line.strip().decode("latin-1")
    if not token:
        raise ValueError(f"is empty; {make}" if is_empty else f"its first line is empty; {instead}")
    if len(line) == LONGEST_LINE or not _is_token(token):
        raise ValueError(f"its first line is no token ({GOOD_ENOUGH}); {instead}")
    return token


def _own_folder(variable: str, otherwise: str) -> Path:
    """Our folder in the one that the variable names. Raises RuntimeError where that means a home, and there is none."""
    return Path(os.environ.get(variable) or Path(otherwise).expanduser()) / "camdock"


def _env_file() -> Path | None:
    """The file `.env` of the folder that the service was started in, if there is one."""
    try:
        return Path(".env") if Path(".env").exists() else None
    except PermissionError:  # a folder that may not even be looked into
        return None


def names_of(field: str) -> tuple[str, ...]:
    """The variables that a field is read from, in capitals; the first that is set counts."""
    alias = Config.model_fields[field].validation_alias
    return tuple(map(str, alias.choices)) if isinstance(alias, AliasChoices) else (f"CAMDOCK_{field.upper()}",)


def values_of(field: str) -> tuple[str, ...]:
    """What a field may be, where only certain words will do; else nothing."""
    annotation = Config.model_fields[field].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def of_file() -> dict[str, str]:
    """What `.env` sets, by the names as they stand there. Raises ConfigInvalid where it cannot be read."""
    if (path := _env_file()) is None:
        return {}
    try:
        return {name: value or "" for name, value in dotenv_values(path, encoding="utf-8").items()}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f".env in {Path.cwd()} cannot be read: {error}") from None


def _place(*names: str) -> str:
    """Where these variables are set: in the environment, or in `.env`, from which the doctor takes them into it."""
    try:
        said = _given(of_file())
    except ConfigInvalid:
        said = {}
    here = said | _given(os.environ)
    is_file = all(name in said and said[name] == here[name] for name in names)
    return f".env in {Path.cwd()}" if is_file else "the environment"


def _given(variables: Mapping[str, str]) -> dict[str, str]:
    """Those that are not empty, by their names in capitals."""
    return {name.upper(): value for name, value in variables.items() if value}


def read_config(*, file: bool = True) -> Config:
    """The configuration from the environment, then from `.env`; raises ConfigInvalid with one line per mistake.

    file  False: from the environment alone
    """
    given = of_file() if file else {}
    try:
        return Config(_env_file=_env_file() if file else None)
    except ValidationError as error:
        is_set = _given(given) | _given(os.environ)
        lines, fields = [], set()
        for mistake in error.errors():
            message = mistake["msg"].removeprefix("Value error, ")
            if mistake["loc"]:
                field = _field(str(mistake["loc"][0]))
                fields.add(field)
                message = f"{_shown(field, is_set, mistake['input'])}: {message}"
            else:
                named = re.findall(r"\bCAMDOCK_([A-Z_]+[A-Z])\b", message)
                fields |= {name.lower() for name in named} & Config.model_fields.keys()
            lines.append(message)
        raise ConfigInvalid("\n".join(lines), fields) from None


def _field(where: str) -> str:
    """The field that pydantic means: it names some by themselves, some by their first variable."""
    return next(field for field in Config.model_fields if where == field or where in names_of(field))


def _shown(field: str, is_set: Collection[str], value: object) -> str:
    """The variable as it was given, NAME=VALUE; of one with a secret in it the name alone."""
    names = names_of(field)
    name = next((name for name in names if name in is_set), names[0])
    text = str(value)[:LONGEST_SHOWN]
    secret = field in ("token", "viewer_token") or (field in ("token_file", "viewer_token_file") and not _is_path(text))
    return name if secret else f"{name}={text}"


def variables() -> Iterator[tuple[str, str, str]]:
    """(name, default, what it says) of every variable, for --help and for the test that guards the README."""
    for name, field in Config.model_fields.items():
        default = "" if field.default is False or field.default in (None, ()) else str(field.default)
        yield f"CAMDOCK_{name.upper()}", default, field.description or ""
