"""Pages as a browser has them: its DOM, what it complained of, what it asked the network for."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--enable-logging=stderr"
)


@dataclasses.dataclass(frozen=True)
class Seen:
    """The DOM after all scripts, lines of the console, addresses that the page asked for."""

    dom: str
    console: list[str]
    requests: list[str]


def open_page(file: Path, scratch: Path) -> Seen:
    """Open a file in a fresh headless Chromium that can look up no name."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "no browser: install one with apt-get install chromium"
    log = scratch / "net.json"
    command = [
        program, *OPTIONS.split(), "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={scratch / 'profile'}", f"--log-net-log={log}",
        "--dump-dom", file.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [e.get("params") or {} for e in events]
    # The browser's own errands have no origin as their initiator.
    own = "not an origin"
    requests = {a["url"] for a in asked if "url" in a and a.get("initiator", own) != own}
    return Seen(
        dom=done.stdout,
        console=[line for line in done.stderr.splitlines() if ":CONSOLE" in line],
        requests=sorted(requests),
    )


def parse(page: str) -> ET.Element:
    """The page as a tree; fails unless it is well-formed."""
    assert page.startswith("<!DOCTYPE html>\n")
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def words(element: ET.Element) -> str:
    """All text of an element, one space between words."""
    return re.sub(r"\s+", " ", " ".join(element.itertext())).strip()


def section(page: ET.Element, title: str) -> ET.Element:
    """The section under a heading."""
    (found,) = [s for s in page.iter("section") if s[0].text == title]
    return found


def rows(element: ET.Element, nth: int = 0) -> list[list[str]]:
    """The n-th table's body as text."""
    body = list(element.iter("tbody"))[nth]
    return [[words(cell) for cell in row] for row in body]


def heads(part: ET.Element, nth: int = 0) -> list[str]:
    return [words(cell) for cell in list(part.iter("thead"))[nth].iter("th")]


def by_arm(part: ET.Element, nth: int = 0, name: str = "arm") -> dict[str, dict[str, str]]:
    """Rows of the n-th table by what stands under ``name``; of equal heads the first counts."""
    head = heads(part, nth)
    found = [dict(reversed(list(zip(head, row, strict=True)))) for row in rows(part, nth)]
    return {row[name]: row for row in found}
