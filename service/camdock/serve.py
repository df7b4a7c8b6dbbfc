"""The service from its command line: what is given, the port, the log, the server.

Runs in: the API process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import gc
import logging
import logging.config
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence

import camdock
from camdock.config import Config, ConfigInvalid, read_config

EXIT_CONFIG = 2
EXIT_PORT = 3
_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # the second: IPv6, where the kernel has none
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


class _Parser(argparse.ArgumentParser):
    """Makes the long part of `--help` for whoever asks for it, not at every start."""

    def format_help(self) -> str:
        from camdock.usage import epilog

        self.epilog = epilog()
        return super().format_help()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="camdock",
        description="Serve cameras as pictures over HTTP. A driver that hangs costs pictures, never the service.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="?", help="where the pictures come from; wins over CAMDOCK_SOURCE")
    parser.add_argument("--host", help="address to listen on; wins over CAMDOCK_HOST")
    parser.add_argument("--port", help="TCP port to listen on; wins over CAMDOCK_PORT")
    parser.add_argument("--version", action="version", version=f"camdock {camdock.__version__}")
    return parser


def _listen(config: Config) -> socket.socket:
    """A listening socket; raises OSError, or UnicodeError for what cannot be a name."""
    host = config.host.strip("[]")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _in_address(host: str) -> str:
    """The host as it stands in an address: one of IPv6 in brackets."""
    host = host.strip("[]")
    return f"[{host}]" if ":" in host else host


def _address(config: Config, port: int) -> str:
    """Where a browser on this machine finds the service."""
    is_any = config.host.strip("[]") in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    return f"{'https' if config.tls_cert else 'http'}://{'127.0.0.1' if is_any else _in_address(config.host)}:{port}"


def _no_listener(config: Config, error: OSError | UnicodeError) -> str:
    """Why nothing listens, and what to do."""
    reason, number = getattr(error, "strerror", None) or str(error), getattr(error, "errno", None)
    hint = ""
    if number == errno.EADDRINUSE:
        hint = (
            f"Is another program there (`ss -ltnp 'sport = :{config.port}'`)? Take another port: "
            f"CAMDOCK_PORT={config.port + 1 if config.port < 65535 else 8000}."
        )
    elif number == errno.EACCES and config.port < 1024:
        hint = "Ports below 1024 need a right (CAP_NET_BIND_SERVICE); take CAMDOCK_PORT=8000."
    elif number in _NOT_OURS or isinstance(error, socket.gaierror | UnicodeError):
        hint = f"CAMDOCK_HOST={config.host} is no address of this machine: 127.0.0.1, 0.0.0.0 or one of its own."
    return f"cannot listen on {_in_address(config.host)}:{config.port}: {reason}" + (hint and f"\n  {hint}")


def log_settings(level: str) -> dict[str, object]:
    """What logging.config.dictConfig takes: one line each on stderr, never with a token in it."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"without_token": {"()": "camdock.auth.WithoutToken"}},
        "formatters": {"plain": {"format": "%(asctime)s %(levelname)-7s %(message)s", "datefmt": "%Y-%m-%d %H:%M:%S"}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["without_token"]},
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "camdock": {"level": level.upper()},
            "uvicorn.error": {"level": "WARNING"},
            "uvicorn.access": {"level": "INFO" if level == "debug" else "WARNING"},
        },
    }


def main(arguments: Sequence[str]) -> int:
    """Run the service; returns the exit status: 2 for a configuration that cannot be used, 3 where none may listen."""
    given = _parser().parse_args(arguments)
    for name, value, beside in (
        ("CAMDOCK_SOURCE", given.source, "CAMDOCK_SOURCES"),
        ("CAMDOCK_HOST", given.host, ""),
        ("CAMDOCK_PORT", given.port, ""),
    ):
        if value is not None:
            for said in [said for said in os.environ if said.upper() in (name, beside)]:  # in whichever letters
                del os.environ[said]
            os.environ[name] = value
    try:
        config = read_config()
    except ConfigInvalid as error:
        print(f"camdock: {error}\n\n`camdock --help` lists every source and variable.", file=sys.stderr)
        return EXIT_CONFIG
    try:
        listener = _listen(config)
    except (OSError, UnicodeError) as error:
        print(f"camdock: {_no_listener(config, error)}", file=sys.stderr)
        return EXIT_PORT
    return _serve(config, listener)


def _serve(config: Config, listener: socket.socket) -> int:
    import uvicorn

    from camdock.app import build
    from camdock.child import KEEP_BELOW, KEEP_FREE
    from camdock.server import DoorProtocol, Server
    from camdock.systemd import Systemd, summary

    logging.config.dictConfig(log_settings(config.level))
    # Every viewer is a file descriptor, and many systems begin with a limit of 1024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    with contextlib.suppress(AttributeError):  # glibc; for the reason see child.KEEP_MEMORY, which the environment sets
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, KEEP_BELOW)
        libc.mallopt(_M_TRIM_THRESHOLD, KEEP_FREE)
    systemd = Systemd.take(os.environ)
    app = build(config)
    server = Server(
        uvicorn.Config(
            app,
            http=DoorProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            server_header=False,
            proxy_headers=False,  # see proxies.py
            ssl_certfile=config.tls_cert,
            ssl_keyfile=config.tls_key,
            timeout_graceful_shutdown=1,
        ),
        systemd,
        lambda: summary(app.state.cameras.values()),
    )
    port = listener.getsockname()[1]
    log = logging.getLogger("camdock")
    log.info("camdock %s on %s", camdock.__version__, _address(config, port))
    if not config.is_loopback and config.auth == "off":
        log.warning("CAMDOCK_AUTH=off: everybody who reaches this port may look and touch")
    for remark in config.remarks:
        log.warning("%s", remark)
    gc.freeze()  # what is there now stays: later collections pass over it, and are over sooner
    gc.enable()
    # Once it has stopped, uvicorn raises the signal again that stopped it; SIGTERM's own answer is no exit status 0.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return 0
