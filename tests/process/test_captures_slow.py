"""Captures while the service is killed, the disk fills, 20 ask at once; how 10,000 list; a client written for Node."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import sqlite3
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from camdock.captures import NAME
from tests.process.conftest import StartService
from tests.tools.cannot import cannot
from tests.tools.service import Asked, Service, until

SOURCE = "synthetic:?size=320x240&fps=1000"
CAPTURES, AT_ONCE = 500, 20
LISTED_WITHIN = 20  # times the page of a folder of 100: one has its names read and sorted, and the same 100 looked at
_libc = ctypes.CDLL(None, use_errno=True)


def take(service: Asked, number: int) -> dict[str, Any] | int | None:
    """One capture's answer; the status where it was refused; None where nobody answered."""
    try:
        answer = service.ask("POST", "/capture", {"exposure": 1000 + number}, timeout_s=60)
    except (OSError, http.client.HTTPException):
        return None
    return answer.json() if answer.status == 200 else answer.status


def checked(folder: Path, answered: list[dict[str, Any]]) -> None:
    """Every capture that was answered is there, whole, under a name of its own; whatever is listed is whole."""
    names = [one["filename"] for one in answered]
    assert len(set(names)) == len(names), "a name was given twice"
    for one in answered:
        data, told = (
            (folder / one["filename"]).read_bytes(),
            json.loads((folder / (one["filename"] + ".json")).read_text()),
        )
        assert len(data) == one["fileSize"]
        assert hashlib.sha256(data).hexdigest() == told["sha256"]
        assert told["settings"]["exposure_us"] == one["exposureTime"]
    for name in filter(NAME.fullmatch, os.listdir(folder)):
        told = json.loads((folder / (name + ".json")).read_text())
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == told["sha256"], f"{name} is not whole"


def nothing_else(folder: Path) -> bool:
    """Whether there are captures with their metadata, and no leftovers."""
    names = set(os.listdir(folder))
    captures = set(filter(NAME.fullmatch, names))
    return names == captures | {name + ".json" for name in captures}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_500_captures_of_20_at_once_through_kills_of_the_service(tmp_path: Path) -> None:
    folder = tmp_path / "captures"
    environment = {"CAMDOCK_SOURCE": SOURCE, "CAMDOCK_CAPTURES_DIR": str(folder)}
    answered: list[dict[str, Any]] = []
    left, lock, kills = list(range(CAPTURES)), threading.Lock(), 0
    service = Service(environment, tmp_path).__enter__()
    dice = random.Random(7)

    def taking() -> None:
        while True:
            with lock:
                if not left:
                    return
                number = left.pop()
            taken = take(service, number)
            with lock:
                if isinstance(taken, dict):
                    answered.append(taken)
                else:
                    left.append(number)
            if not isinstance(taken, dict):
                time.sleep(0.05)  # as a client would: it is being started again

    try:
        service.until_state("live")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            workers = [pool.submit(taking) for _ in range(AT_ONCE)]
            for share in (0.2, 0.5, 0.8):
                until(lambda share=share: len(answered) >= CAPTURES * share, 120, "captures go on", every_s=0.002)
                time.sleep(dice.random() * 0.02)  # anywhere in the middle of a write
                service.kill()
                kills += 1
                service = Service(environment, tmp_path, port=service.port).__enter__()
            for worker in workers:
                worker.result(120)
        assert (len(answered), kills) == (CAPTURES, 3)
        checked(folder, answered)
        until(lambda: nothing_else(folder), 10, lambda: f"leftovers: {sorted(os.listdir(folder))[:5]}")
        listed = service.get("/captures/list").json()
        assert {one["filename"] for one in answered} <= {one["filename"] for one in listed["files"]}
        assert service.camera()["settings"]["applied"]["exposure_us"] == 10_000
    finally:
        service.stop()


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own that is soon full; needs root."""
    folder.mkdir()
    if _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()) != 0:
        cannot(f"mounting a small file system needs root: {os.strerror(ctypes.get_errno())}")
    try:
        yield folder
    finally:
        _libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_disk_that_fills_in_the_middle_refuses_and_loses_nothing(tmp_path: Path, start: StartService) -> None:
    with small_disk(tmp_path / "disk", "1500k") as disk:
        folder = disk / "captures"
        service = start(SOURCE, CAMDOCK_CAPTURES_DIR=str(folder))
        service.until_state("live")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            taken = list(pool.map(lambda number: take(service, number), range(CAPTURES)))
        answered = [one for one in taken if isinstance(one, dict)]
        refused = [one for one in taken if not isinstance(one, dict)]
        assert answered
        assert set(refused) == {507}
        checked(folder, answered)
        assert nothing_else(folder)
        last = service.ask("POST", "/cameras/camera/captures", {})
        assert last.json()["code"] == "storage_full"
        assert "CAMDOCK_CAPTURES_MAX_BYTES" in last.json()["hint"]
        for one in answered[:3]:
            assert service.ask("DELETE", f"/captures/{one['filename']}").status == 204
        again = take(service, 1)
        assert isinstance(again, dict), "there is room again"
        checked(folder, [*answered[3:], again])


@pytest.mark.slow
def test_a_page_of_ten_thousand_costs_little_more_than_one_of_a_hundred(tmp_path: Path, start: StartService) -> None:
    folder = tmp_path / "captures"
    service = start(SOURCE, CAMDOCK_CAPTURES_DIR=str(folder))
    service.until_state("live")

    def fill(count: int) -> None:
        folder.mkdir(exist_ok=True)
        for number in range(len(list(folder.glob("*.jpg"))), count):
            name = f"capture_20260101_{number // 1000:06d}_{number % 1000:03d}.jpg"
            (folder / name).touch()
            (folder / (name + ".json")).touch()

    def median_s() -> float:
        seconds = []
        for _ in range(15):
            began = time.monotonic()
            page = service.get("/captures?limit=100").json()
            seconds.append(time.monotonic() - began)
            assert len(page["captures"]) == 100
        return statistics.median(seconds)

    fill(100)
    few = median_s()
    fill(10_000)
    many = median_s()
    print(f"a page of 100: {few * 1000:.1f} ms, of 10,000: {many * 1000:.1f} ms")
    assert many < LISTED_WITHIN * few
    assert many < 1.0
    everything = service.get("/captures/list").json()
    assert everything["count"] == 10_000


AXIOS = """
import axios from "axios";
import initSqlJs from "sql.js";
import { writeFileSync } from "node:fs";
const [url, file] = process.argv.slice(2);
const base = axios.create({ baseURL: url, timeout: 10000 });
const database = new (await initSqlJs()).Database();
database.run(`CREATE TABLE captures (filename TEXT NOT NULL UNIQUE, filepath TEXT NOT NULL, captured_at TEXT NOT NULL,
  exposure_time INTEGER NOT NULL, gain REAL NOT NULL, file_size INTEGER NOT NULL, width INTEGER NOT NULL,
  height INTEGER NOT NULL, metadata TEXT NOT NULL) STRICT`);
const insert = database.prepare("INSERT INTO captures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
for (const body of [{}, { exposure: 10000, gain: 1.5 }, { exposure: 50000 }]) {
  const { data } = await base.post("/capture", body);
  if (!data.success || !Number.isInteger(data.exposureTime)) throw new Error(JSON.stringify(data));
  insert.run([data.filename, data.filepath, data.capturedAt, data.exposureTime, data.gain, data.fileSize, data.width,
    data.height, JSON.stringify(data.metadata)]);
}
const health = (await base.get("/health")).data;
const settings = (await base.put("/settings", { exposure: 50000, gain: 2.0 })).data;
const list = (await base.get("/captures/list")).data;
writeFileSync(file, database.export());
console.log(JSON.stringify({ health: health.status, settings, count: list.count }));
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_axios_stores_captures_in_a_table_with_integer_columns(tmp_path: Path, start: StartService) -> None:
    """The NestJS backend's way: axios, then a table that takes nothing but an integer for exposure_time (STRICT).

    sql.js is SQLite itself, compiled for JavaScript: a number with a fraction is bound as one, and refused.
    """
    npm, node = shutil.which("npm"), shutil.which("node")
    if not npm or not node:
        cannot("node and npm are needed: apt-get install nodejs npm")
    client = tmp_path / "client"
    client.mkdir()
    (client / "package.json").write_text('{"type": "module", "private": true}')
    (client / "lab.js").write_text(AXIOS)
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "axios@1", "sql.js@1"],
        cwd=client,
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        cannot("npm cannot fetch axios and sql.js: " + installed.stderr.strip()[-300:])
    service = start(SOURCE)
    database = tmp_path / "lab.sqlite"
    done = subprocess.run(
        [node, "lab.js", f"http://127.0.0.1:{service.port}", str(database)], cwd=client, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["health"], told["count"]) == ("healthy", 3)
    assert (told["settings"]["exposure"], told["settings"]["gain"]) == (50000, 2.0)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT exposure_time, typeof(exposure_time), gain, filename FROM captures"
        ).fetchall()
    assert [row[:3] for row in rows] == [(10000, "integer", 1.0), (10000, "integer", 1.5), (50000, "integer", 1.0)]
    assert all(re.fullmatch(r"capture_\d{8}_\d{6}_\d{3}\.jpg", row[3]) for row in rows)
