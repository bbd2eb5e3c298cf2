"""One file over HTTP, resumable: what has come stays in ``<file>.part`` until the rest has come too.

Beside it ``<file>.part.json`` keeps the server's validator (strong ETag, else Last-Modified) and the
file's size. A repeated request asks for the missing bytes only *if* the file is still the same
(``Range`` with ``If-Range``); a server that has another one, or knows no ranges, sends it from the
start, and so it begins again. Whether the bytes are the right ones is for the caller to verify.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.base.errors import DownloadError, UsageError
from pipeline.base.files import read_json, write_json

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60.0
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # a later request may go better
Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How often to try again without a byte of progress, and how long to wait before: 1, 2, 4, … s."""

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep


class _Again(Exception):
    """A request that came to nothing, but may go better the next time."""


def part_of(path: Path) -> Path:
    """Where a file is kept until it is whole."""
    return path.with_name(f"{path.name}.part")


def discard(path: Path) -> None:
    """Forget what has come of ``path``."""
    part_of(path).unlink(missing_ok=True)
    _state_of(path).unlink(missing_ok=True)


def fetch(
    url: str,
    path: Path,
    *,
    expected: int | None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Bring the file at ``url`` to ``part_of(path)``, continuing what is there.

    Parameters
    ----------
    expected : its size in bytes, if known; a server that offers another one is refused at once
    progress : called with (bytes here, bytes in all or 0, "")

    Raises
    ------
    DownloadError
        naming the URL, what went wrong, and what is kept.
    UsageError
        for a URL that is not http or https.
    """
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"'{url}' is not an http(s) address")
    patience = patience or Patience()
    failures = furthest = 0
    while True:
        try:
            _session(url, path, expected, progress or (lambda *_: None))
            return part_of(path)
        except _Again as error:
            reason = str(error)
        # Progress is only what no attempt before had reached: a server that changes the file, or
        # always drops at the same byte, cannot keep us here for ever.
        have = _size(part_of(path))
        failures = 1 if have > furthest else failures + 1
        furthest = max(furthest, have)
        if failures > patience.attempts:
            raise DownloadError(
                f"{url}: {reason}, {failures} times in a row; {have} bytes are kept in "
                f"{part_of(path)}: repeat the command to continue"
            )
        patience.sleep(min(patience.longest_wait_s, patience.first_wait_s * 2 ** (failures - 1)))


def _session(url: str, path: Path, expected: int | None, progress: Progress) -> None:
    """One request, from where the last one ended. Returns when the file is whole."""
    state, have = _read_state(path), _size(part_of(path))
    if have and not state.get("validator"):
        have = 0  # nothing says that the file is still the same
    if have and have == state.get("total"):
        return
    headers = {"User-Agent": "xmodal-features", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": state["validator"]}
    request = urllib.request.Request(url, headers=headers)
    try:
        with contextlib.closing(_open(request)) as response:
            total = _total(response, have, state.get("total"))
            if total is not None and expected is not None and total != expected:
                raise DownloadError(
                    f"{url} is {total} bytes long, but the archive has {expected}; "
                    "is this the right address?"
                )
            if response.status != 206:
                have = 0
                path.parent.mkdir(parents=True, exist_ok=True)
                part_of(path).unlink(missing_ok=True)
                validator = _validator(response.headers)
                write_json(_state_of(path), {"validator": validator, "total": total})
            limit = total if total is not None else expected
            with part_of(path).open("ab") as handle:
                end = _copy(response, handle, have, limit, progress)
    except _RangeRefused:
        discard(path)
        raise _Again("the server no longer has the rest of this file") from None
    if limit is not None and end != limit:
        raise _Again(f"the connection ended at byte {end} of {limit}")
    if total is None:
        write_json(_state_of(path), {**_read_state(path), "total": end})


class _RangeRefused(Exception):
    """Status 416, or another range than was asked for."""


def _open(request: urllib.request.Request) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                raise _RangeRefused from None
            if error.code in AGAIN:
                raise _Again(f"the server answers {error.code} ({error.reason})") from None
            raise DownloadError(
                f"{request.full_url}: the server answers {error.code} ({error.reason}); "
                "is this the right address?"
            ) from None
    except urllib.error.URLError as error:
        raise _Again(f"no connection ({error.reason})") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"no connection ({error or type(error).__name__})") from None


def _total(response: Any, have: int, known: int | None) -> int | None:
    """Size of the whole file as this response says it, or None if it does not."""
    if response.status == 206:
        text = response.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", text.strip())
        if not found or int(found[1]) != have or (known and int(found[2]) != known):
            raise _RangeRefused
        return int(found[2])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _copy(response: Any, handle: BinaryIO, have: int, limit: int | None, progress: Progress) -> int:
    """Append the body; a connection that breaks off ends it. Returns the bytes that are there now."""
    broken: Exception | None = None
    while broken is None:
        try:
            block = response.read(BLOCK_BYTES)
        except http.client.IncompleteRead as error:
            block, broken = error.partial, error
        except (OSError, http.client.HTTPException) as error:
            block, broken = b"", error
        if not block:
            break
        if limit is not None and have + len(block) > limit:
            raise DownloadError(f"{response.url}: the server sends more than {limit} bytes")
        handle.write(block)
        have += len(block)
        progress(have, limit or 0, "")
    handle.flush()
    os.fsync(handle.fileno())
    if broken is not None:
        raise _Again(f"the connection broke off at byte {have} ({broken!r})")
    return have


def _validator(headers: Any) -> str | None:
    """What ``If-Range`` may carry: weak ETags may stand for other bytes."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _state_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = read_json(_state_of(path))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
