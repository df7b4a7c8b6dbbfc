"""FastAPI's StreamingResponse over an asyncio.Condition: what one writes today without threads.

Runs in: a process of its own, started by the bench.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from tests.bench.peers import capture


class Output:
    def __init__(self) -> None:
        self.frame = b""
        self.condition = asyncio.Condition()
        self.loop = asyncio.get_running_loop()

    def publish(self, frame: bytes) -> None:
        asyncio.run_coroutine_threadsafe(self._publish(frame), self.loop)

    async def _publish(self, frame: bytes) -> None:
        async with self.condition:
            self.frame = frame
            self.condition.notify_all()

    async def parts(self) -> AsyncIterator[bytes]:
        while True:
            async with self.condition:
                await self.condition.wait()
                frame = self.frame
            head = f"--FRAME\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
            yield head.encode() + frame + b"\r\n"


given = capture.options()


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    app.state.output = Output()
    capture.start(given.size, given.format, app.state.output.publish)
    yield


app = FastAPI(lifespan=running)


@app.get("/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse(app.state.output.parts(), media_type="multipart/x-mixed-replace; boundary=FRAME")


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", timeout_graceful_shutdown=1)
