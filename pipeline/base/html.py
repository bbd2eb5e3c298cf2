"""The one page shell: self-contained HTML that shows data and can do nothing else.

Markup is built by :func:`tag`; a plain string becomes text, whatever is in it, and only what these
functions made (:class:`Html`) is markup. A page carries one style sheet and one script, both known by
their SHA-256 to its content security policy, which forbids all the rest: no request, no frame, no
form, no handler or style in an attribute. Pages are well-formed XML too, so that tests can parse them.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import io
import math
import re
import wave
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import TypeGuard

DASH = "–"
VOID = frozenset("br hr img input link meta".split())
LOADS = frozenset("src href data poster action xlink:href".split())
# Not allowed in XML, and nothing that a text can mean: controls, surrogates, non-characters.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Markup. A plain ``str`` is never taken for it."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of a page, listed under its title in the page's contents."""

    title: str
    body: Html


def text(value: object) -> Html:
    """Any value as text: markup signs are escaped, what cannot be printed becomes U+FFFD."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(UNPRINTABLE.sub("�", str(value)), quote=True))


def join(*parts: object) -> Html:
    """Parts one after the other; plain strings are text."""
    return Html("".join(text(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element.

    Parameters
    ----------
    children : text, or markup from this module; None is nothing
    attributes : ``class_`` is ``class``, ``aria_label`` is ``aria-label``; None and False are left
        out, True is written as its own name

    Raises
    ------
    ValueError
        on an attribute that could run something, or load something from outside the page.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        if key.startswith("on") or key == "style":
            raise ValueError(f"the attribute {key} is against the page's own policy")
        if key in LOADS and not str(value).startswith(("data:", "#")):
            raise ValueError(f"{key} = {str(value)[:60]!r}: a page must not load anything")
        shown = key if value is True else value
        parts.append(f'{key}="{html.escape(UNPRINTABLE.sub("�", str(shown)), quote=True)}"')
    opening = " ".join(parts)
    if name in VOID:
        return Html(f"<{opening}/>")
    return Html(f"<{opening}>{join(*children)}</{name}>")


def number(value: float | None, digits: int = 3) -> str:
    """A number as people read it: ``12,345``, ``0.0123``, ``1.2e−7``; a dash for what is none."""
    if value is None or not math.isfinite(value):
        return DASH
    if float(value).is_integer() and abs(value) < 1e15:
        shown = f"{int(value):,}"
    elif abs(value) >= 10 ** (digits - 1):
        shown = f"{value:,.0f}"
    else:
        shown = f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e")
    return shown.replace("-", "−")


def size(n_bytes: float) -> str:
    """Bytes with a decimal prefix."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{number(n_bytes)} {unit}"
        n_bytes /= 1000
    return f"{number(n_bytes)} GB"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    sortable: bool = False,
    filterable: bool = False,
    decimals: int | None = None,
) -> Html:
    """A table that scrolls sideways where the screen is narrow.

    Numbers stand right, formatted by :func:`number`, or those that are no whole ones with so many
    ``decimals``; None is a dash; a sortable table is sorted by clicking on a column's head; a
    filterable one shows the rows that have all words of its box.
    """
    listed = list(rows)
    sides = ["n" if any(_is_amount(row[i]) for row in listed) else None for i in range(len(head))]
    body = [
        tag("tr", *(_cell(value, side, decimals) for value, side in zip(row, sides, strict=True)))
        for row in listed
    ]
    names = [
        tag("th", tag("button", name, type="button") if sortable else name, class_=side)
        for name, side in zip(head, sides, strict=True)
    ]
    inner = join(tag("thead", tag("tr", *names)), tag("tbody", *body))
    shown = tag(
        "div", tag("table", inner, class_="sortable" if sortable else None), class_="scroll"
    )
    if not filterable:
        return shown
    box = tag("input", type="search", placeholder="only rows with …", aria_label="only rows with")
    return tag("div", box, tag("output"), shown, class_="filterable")


def pairs(items: Iterable[tuple[str, object]]) -> Html:
    """Names and what they are."""
    listed = [tag("div", tag("dt", k), tag("dd", DASH if v is None else v)) for k, v in items]
    return tag("dl", *listed, class_="pairs")


def tiles(items: Iterable[tuple[object, str]]) -> Html:
    """A few big numbers, each with what it counts."""
    listed = [tag("div", tag("strong", value), tag("span", what)) for value, what in items]
    return tag("div", *listed, class_="tiles")


def unbroken(value: object) -> Html:
    """Something short that stays in one line."""
    return tag("span", value, class_="unbroken")


def folded(summary: object, *body: object, opened: bool = False) -> Html:
    """Something that opens on a click."""
    return tag("details", tag("summary", summary), *body, open=opened)


def note(*parts: object) -> Html:
    """A caption or remark."""
    return tag("p", *parts, class_="note")


def command(line: str) -> Html:
    """A command to be copied."""
    return tag("pre", tag("code", line))


def audio(samples: bytes, rate: int) -> Html:
    """A player of 16-bit mono samples (little-endian), which travel within the page as WAV."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return tag(
        "audio", controls=True, preload="metadata", src=data_uri(out.getvalue(), "audio/wav")
    )


def data_uri(content: bytes, kind: str) -> str:
    """Content as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def page(title: str, lead: Html, sections: Sequence[Section]) -> str:
    """The whole document.

    Parameters
    ----------
    title : of the window and of the page
    lead : what stands between the title and the contents
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        "default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", style),
    )
    links = [tag("a", s.title, href=f"#s{i}") for i, s in enumerate(sections)]
    parts = [tag("section", tag("h2", s.title), s.body, id=f"s{i}") for i, s in enumerate(sections)]
    body = join(
        tag("header", tag("h1", title), lead, tag("nav", *links)),
        tag("main", *parts),
        tag("script", script),
    )
    return "<!DOCTYPE html>\n" + tag("html", tag("head", head), tag("body", body), lang="en") + "\n"


def _cell(value: object, side: str | None, decimals: int | None) -> Html:
    if isinstance(value, bool):
        return tag("td", "yes" if value else "no")
    if _is_amount(value):
        shown = number(value)
        if decimals is not None and isinstance(value, float) and math.isfinite(value):
            shown = f"{value:.{decimals}f}".replace("-", "−")
        return tag("td", shown, class_="n", data_v=repr(float(value)))
    if value is None:
        return tag("td", DASH, class_=side)
    return tag("td", value)


def _is_amount(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@cache
def _asset(name: str) -> Html:
    """A file of this folder; neither < nor & may be in it, for it stands in the page as it is."""
    content = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    if "<" in content or "&" in content:
        raise ValueError(f"{name} has a sign that would have to be escaped")
    return Html(content)


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
