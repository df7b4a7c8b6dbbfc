"""The HTTP application around the owners.

Runs in: the API process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

import camdock
from camdock import api, metrics, problems, stream
from camdock.auth import Gate
from camdock.config import Config
from camdock.owners import Owners

DESCRIPTION = """Cameras as pictures over HTTP.

Put `/stream` into an `<img>`, fetch `/snapshot` with curl, ask `/cameras` what is going on.
Paths that name no camera mean the first one. With a token: `Authorization: Bearer TOKEN`, or `?token=TOKEN`.
Errors are problem documents (RFC 9457) with a stable `code` and a `hint`.
"""


def build(config: Config, owners: Owners | None = None) -> FastAPI:
    """The whole service. Its lifespan starts the owners, if they do not run yet, and ends them."""
    owners = owners or Owners(config)
    cameras, sender, abi = owners.cameras, owners.sender, owners.abi
    app = FastAPI(
        title="Camdock",
        version=camdock.__version__,
        description=DESCRIPTION,
        lifespan=_running(owners),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(api.router(cameras, sender, abi, camdock.__version__))
    app.include_router(stream.router(cameras, sender))
    app.include_router(metrics.router(cameras, sender, abi, camdock.__version__, config.settings_path("").parent))
    problems.install(app)
    app.add_middleware(Gate, config=config)
    return app


def _running(owners: Owners) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        owners.start()
        try:
            yield
        finally:
            await owners.stop()

    return lifespan
