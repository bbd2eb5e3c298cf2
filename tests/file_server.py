"""A web server for one file at a time that can misbehave in the ways that servers do."""

from __future__ import annotations

import dataclasses
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclasses.dataclass
class Served:
    """What is served, and how.

    ``statuses`` and ``drops`` are used up request by request: an error to answer with, a number of
    body bytes after which the connection ends (``reset``: is torn down). ``log`` keeps
    (status, Range, If-Range, body bytes sent).
    """

    content: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = "Sat, 29 Aug 2020 10:00:00 GMT"
    ranges: bool = True
    length: bool = True
    shifted: int = 0  # by how many bytes the range that is sent misses the one asked for
    reset: bool = False
    statuses: list[int] = dataclasses.field(default_factory=list)
    drops: list[int] = dataclasses.field(default_factory=list)
    log: list[tuple[int, str | None, str | None, int]] = dataclasses.field(default_factory=list)
    url: str = ""


@contextmanager
def serve(content: bytes, **how: Any) -> Iterator[Served]:
    """Serve ``content`` under every path of ``served.url``."""
    served = Served(content, **how)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": served}))
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Served
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        served = self.served
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if served.statuses:
            status = served.statuses.pop(0)
            served.log.append((status, asked, condition, 0))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        total, start = len(served.content), 0
        unchanged = condition is None or condition in (served.etag, served.last_modified)
        found = re.fullmatch(r"bytes=(\d+)-", asked or "")
        partial = served.ranges and unchanged and found is not None
        if partial:
            assert found
            start = int(found[1])
        if partial and start >= total:
            served.log.append((416, asked, condition, 0))
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = max(0, start + served.shifted) if partial else start
        body = served.content[start:]
        self.send_response(206 if partial else 200)
        if served.etag:
            self.send_header("ETag", served.etag)
        if served.last_modified:
            self.send_header("Last-Modified", served.last_modified)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if served.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = body[: served.drops.pop(0)] if served.drops else body
        served.log.append((206 if partial else 200, asked, condition, len(sent)))
        if served.length:
            self.wfile.write(sent)
        else:
            self.wfile.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n")
            self.wfile.write(b"0\r\n\r\n" if len(sent) == len(body) else b"")
        if len(sent) < len(body):
            self.close_connection = True
            if served.reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()

    def log_message(self, *args: object) -> None:
        """Silence."""
