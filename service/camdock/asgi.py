"""The service for another ASGI server, as `camdock.asgi:app`: gunicorn with uvicorn's worker class, or uvicorn itself.

Runs in: that server's process. Where to listen is the server's own affair; everything else is configured as always.
Each of its processes is a service of its own, and a camera can be held by one of them only: where one is configured,
the second process does not start. Wrong tokens are counted in each process by itself.

uvicorn believes X-Forwarded-For of whoever asks from loopback, before CAMDOCK_TRUSTED_PROXIES is looked at: switch that
off with `--no-proxy-headers`, under gunicorn with FORWARDED_ALLOW_IPS="".
"""

from __future__ import annotations

import asyncio
import logging.config
import os
import socket
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from camdock.app import build
from camdock.config import ConfigInvalid, read_config
from camdock.serve import log_settings
from camdock.source import Source
from camdock.systemd import Systemd

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

GUNICORN_GIVES_UP = (
    3  # its Arbiter.WORKER_BOOT_ERROR: after another status it starts the next process at once, for ever
)
SUCCESSION_WITHIN_S = 5.0  # a server that is told to reload starts the new process before it ends the old one


class OnlyProcess:
    """The application, for one process of a server alone while a device is among its cameras.

    The claim is a name in the kernel's abstract namespace of sockets, made of the server's process id: it needs no
    folder that can be written to, knows no other server, and goes when its process does, however that ends.
    """

    def __init__(self, app: ASGIApp, sources: Iterable[Source]) -> None:
        self._app = app
        self._devices = sorted(source.redacted for source in sources if source.is_hardware)
        self._claim: socket.socket | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start only as the first, and answer everything that is asked then."""
        if scope["type"] != "lifespan" or not self._devices or await self._is_first():
            await self._app(scope, receive, send)
            return
        await receive()
        refusal: Message = {
            "type": "lifespan.startup.failed",
            "message": f"camdock: this server has more than one process, and {', '.join(self._devices)} can be held by "
            "one only: start it with --workers 1, or WEB_CONCURRENCY=1",
        }
        await send(refusal)

    async def _is_first(self) -> bool:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        due = asyncio.get_running_loop().time() + SUCCESSION_WITHIN_S
        while True:
            try:
                claim.bind(f"\0camdock-{os.getuid()}-{os.getppid()}")
            except OSError:
                if asyncio.get_running_loop().time() > due:
                    claim.close()
                    return False
                await asyncio.sleep(0.1)
            else:
                self._claim = claim
                return True


try:
    _config = read_config()
except ConfigInvalid as error:
    print(f"camdock: {error}\n\n`camdock --help` lists every source and variable.", file=sys.stderr)
    sys.exit(GUNICORN_GIVES_UP)
logging.config.dictConfig(log_settings(_config.level))
for _remark in _config.remarks:
    logging.getLogger("camdock").warning("%s", _remark)
Systemd.take(os.environ)  # that server speaks for itself; no child of ours does
app = OnlyProcess(build(_config), _config.cameras.values())
