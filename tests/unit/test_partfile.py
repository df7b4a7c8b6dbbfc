"""The part as a file in memory: what the kernel lends to sockets, and what it never mixes up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from camdock.frame import Frame
from camdock.partfile import LARGEST, PartFile
from tests.unit.rig import frame_of


def part_of(seq: int, size: int) -> Frame:
    """A frame whose part is a little over that many bytes."""
    return frame_of(seq, bytes([seq]) * size)


def memory_files() -> list[str]:
    links = (os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return [link for link in links if "memfd:part" in link]


def connected(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """A server's side that does not wait, and a client's, with little room between them."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(listener.getsockname())
    server = stack.enter_context(listener.accept()[0])
    server.setblocking(False)
    return server, client


def read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = client.recv(count - len(data))
        assert more, "closed"
        data += more
    return data


@pytest.fixture
def file() -> Iterator[PartFile]:
    made = PartFile()
    yield made
    made.close()
    assert memory_files() == []


def test_many_get_the_same_bytes_of_one_file(file: PartFile) -> None:
    frame = part_of(1, 1000)
    with ExitStack() as stack:
        for _ in range(5):
            server, client = connected(stack)
            assert file.send(server.fileno(), frame) == len(frame.part)
            assert len(memory_files()) == 1
            assert read(client, len(frame.part)) == frame.part


def test_what_is_unread_stays_what_it_was_when_the_next_part_has_come(file: PartFile) -> None:
    frames = [part_of(seq, 1000) for seq in (1, 2, 3)]
    with ExitStack() as stack:
        server, client = connected(stack)
        for frame in frames:
            assert file.send(server.fileno(), frame) == len(frame.part)
        file.close()
        whole = b"".join(frame.part for frame in frames)
        assert read(client, len(whole)) == whole


def test_a_full_socket_takes_less_and_the_rest_can_be_written(file: PartFile) -> None:
    frame = part_of(1, 60_000)
    with ExitStack() as stack:
        server, client = connected(stack)
        taken = file.send(server.fileno(), frame)
        assert 0 < taken < len(frame.part)
        assert file.send(server.fileno(), frame) == 0, "full"
        data, rest = b"", memoryview(frame.part)[taken:]
        while rest:
            try:
                rest = rest[server.send(rest) :]
            except BlockingIOError:
                data += client.recv(1 << 16)
        assert data + read(client, len(frame.part) - len(data)) == frame.part


def test_a_large_part_and_a_socket_that_is_gone_are_left_to_others(file: PartFile) -> None:
    large, small = part_of(1, LARGEST), part_of(2, 100)
    with ExitStack() as stack:
        server, client = connected(stack)
        assert file.send(server.fileno(), large) == 0
        assert memory_files() == []
        client.close()
        file.send(server.fileno(), small)  # is answered by a reset
        assert file.send(server.fileno(), small) == 0


def test_without_a_descriptor_left_nothing_is_sent_and_the_next_part_tries_again(
    file: PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_name: str) -> int:
        raise OSError(24, "Too many open files")

    with ExitStack() as stack:
        server, client = connected(stack)
        with monkeypatch.context() as patched:
            patched.setattr(os, "memfd_create", refused)
            assert file.send(server.fileno(), part_of(1, 100)) == 0
        frame = part_of(2, 100)
        assert file.send(server.fileno(), frame) == len(frame.part)
        assert read(client, len(frame.part)) == frame.part
