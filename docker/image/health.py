"""Is the service in this container well? Exit status 0 or 1, with one line that says why: what HEALTHCHECK asks.

Runs in: a process of its own, every few seconds: hence nothing is imported that takes long. Not well is a service that
does not answer in time, or one whose cameras stay dark because a library breaks with NumPy. An unplugged camera is no
reason: the service is well, and /health/ready tells of it.
"""

import json
import os
import socket
import sys
import time

WITHIN_S = 2.5
LARGEST = 1 << 20


def _secured(connection: socket.socket) -> socket.socket:
    """The connection, with TLS where the service speaks it. Its certificate is for its name, not for this address."""
    if not os.environ.get("CAMDOCK_TLS_CERT"):
        return connection
    import ssl  # takes as long as all the rest

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return context.wrap_socket(connection)
    except BaseException:
        connection.close()
        raise


def main() -> int:
    """Ask /health once; returns the exit status."""
    host = os.environ.get("CAMDOCK_HOST") or os.environ.get("HOST") or "127.0.0.1"
    port = os.environ.get("CAMDOCK_PORT") or os.environ.get("PORT") or "8000"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - compared
    answer = b""
    due = time.monotonic() + WITHIN_S
    try:
        with _secured(socket.create_connection((host, int(port)), WITHIN_S)) as connection:
            # HTTP/1.0 without a Host header: whatever names CAMDOCK_ALLOWED_HOSTS lists, this is answered.
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            while part := connection.recv(65536):
                answer += part
                left = due - time.monotonic()
                if len(answer) > LARGEST or left <= 0:
                    raise ValueError("it answers without end")
                connection.settimeout(left)
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head.split(None, 2)[1:2]
        if status != [b"200"]:
            print(f"not well: /health answered {b' '.join(status).decode('ascii', 'replace') or 'nothing'}")
            return 1
        health = json.loads(body)
        abi, state, connected = health["abi"], health["status"], health["camera_connected"]
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        print(f"not well: nothing that can be used from {host}:{port}: {error}")
        return 1
    if abi == "broken":
        print("not well: a library breaks with the installed NumPy; the log has the command that mends it")
        return 1
    print(f"{state}; camera {'connected' if connected else 'not connected'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
