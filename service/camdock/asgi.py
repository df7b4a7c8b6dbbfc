"""The service for another ASGI server, as `camdock.asgi:app`: gunicorn with uvicorn's worker class, or uvicorn itself.

Runs in: that server's process. Where to listen is the server's own affair; everything else is configured as always.
Each of its processes is a service of its own, and a camera can be held by one of them only.
"""

from __future__ import annotations

import logging.config
import os
import sys

from camdock.app import build
from camdock.config import ConfigInvalid, read_config
from camdock.serve import log_settings
from camdock.systemd import Systemd

GUNICORN_GIVES_UP = (
    3  # its Arbiter.WORKER_BOOT_ERROR: after another status it starts the next process at once, for ever
)

try:
    _config = read_config()
except ConfigInvalid as error:
    print(f"camdock: {error}\n\n`camdock --help` lists every source and variable.", file=sys.stderr)
    sys.exit(GUNICORN_GIVES_UP)
logging.config.dictConfig(log_settings(_config.level))
Systemd.take(os.environ)  # that server speaks for itself; no child of ours does
app = build(_config)
