"""The page shell: everything from data is text, and a page can do nothing but be seen and heard."""

from __future__ import annotations

import base64
import hashlib
import io
import wave

import numpy as np
import pytest
from browser import parse, rows, words
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base import html
from pipeline.base.html import Html, Section, number, page, tag, text

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x onerror=alert(1)>',
    "' onload='alert(1)",
    "</style></script></title><svg/onload=alert(1)>",
    "<!-- ]]> &lt; &amp;",
    "a\x00b\x08c\x7f\ud800",
)


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_text_is_text_wherever_it_stands(value: str) -> None:
    cell = html.table(["a", value], [[value, 1]])
    facts = html.pairs([(value, value)])
    body = tag("p", value, cell, facts, html.folded(value, value), title=value, data_x=value)
    root = parse(page(value, html.note(value), [Section(title=value, body=body)]))
    shown = "".join("�" if html.UNPRINTABLE.match(c) else c for c in value)
    (title,) = root.iter("title")
    assert title.text == shown
    assert [n for n in (e.tag for e in root.iter()) if n in ("img", "svg")] == []
    assert len(list(root.iter("script"))) == 1
    paragraph = next(p for p in root.iter("p") if p.get("title"))
    assert paragraph.get("title") == paragraph.get("data-x") == shown
    assert not [k for e in root.iter() for k in e.attrib if k.startswith("on") or k == "style"]


@given(st.text())
def test_any_text_survives_as_it_is(value: str) -> None:
    shown = html.UNPRINTABLE.sub("�", value).replace("\r\n", "\n").replace("\r", "\n")
    root = parse("<!DOCTYPE html>\n" + tag("p", value))
    assert (root.text or "") == shown


def test_only_markup_of_ours_is_markup() -> None:
    assert text("<b>") == "&lt;b&gt;"
    assert text(Html("<b>")) == "<b>"
    assert html.join("<", tag("b", "&"), None, 3) == "&lt;<b>&amp;</b>3"
    assert tag("input", disabled=True, hidden=False, value=None) == '<input disabled="disabled"/>'
    assert not isinstance(tag("b") + "<i>", Html)  # a sum is a plain string again


@pytest.mark.parametrize(
    "attribute",
    [
        {"onclick": "x"},
        {"style": "color: red"},
        {"src": "http://evil.example/x"},
        {"src": "//evil.example/x"},
        {"href": "javascript:alert(1)"},
        {"href": "page.html"},
        {"poster": "x.png"},
    ],
)
def test_attributes_that_run_or_load_are_refused(attribute: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="page"):
        tag("a", **attribute)


def test_the_policy_allows_exactly_what_the_page_carries() -> None:
    root = parse(page("x", Html(""), []))
    (policy,) = [
        m.get("content", "")
        for m in root.iter("meta")
        if m.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    for kind, name in (("style-src", "style"), ("script-src", "script")):
        (element,) = root.iter(name)
        digest = hashlib.sha256((element.text or "").encode()).digest()
        assert rules[kind] == f"'sha256-{base64.b64encode(digest).decode()}'"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (12345, "12,345"), (-2, "−2"), (2.0, "2"), (0.012345, "0.0123"), (1234.6, "1,235"),
        (99.96, "100"), (1.23e-7, "1.23e−7"), (-0.5, "−0.5"), (float("nan"), "–"), (None, "–"),
        (float("inf"), "–"), (3e20, "300,000,000,000,000,000,000"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(7, "7 bytes"), (1500, "1.5 kB"), (258_225_130, "258 MB"), (7.1e12, "7,100 GB")],
)
def test_sizes(value: float, shown: str) -> None:
    assert html.size(value) == shown


def test_tables_put_numbers_right_and_say_how_to_sort_them() -> None:
    root = parse(
        "<!DOCTYPE html>\n" + html.table(["a", "b"], [["x", 1.5], [None, 1000], [True, None]])
    )
    assert rows(root) == [["x", "1.5"], ["–", "1,000"], ["yes", "–"]]
    assert [h.get("class") for h in root.iter("th")] == [None, "n"]
    assert [c.get("data-v") for c in root.iter("td")] == [None, "1.5", None, "1000.0", None, None]


def test_decimals_are_those_of_fractions_alone() -> None:
    root = parse(
        "<!DOCTYPE html>\n" + html.table(["a"], [[0.5], [-0.0004], [1.0], [7]], decimals=3)
    )
    assert rows(root) == [["0.500"], ["−0.000"], ["1.000"], ["7"]]
    assert [c.get("data-v") for c in root.iter("td")] == ["0.5", "-0.0004", "1.0", "7.0"]


def test_sound_travels_within_the_page() -> None:
    samples = np.arange(-500, 500, dtype="<i2")
    root = parse("<!DOCTYPE html>\n" + html.audio(samples.tobytes(), 24_000))
    kind, content = (root.get("src") or "").split(",")
    assert kind == "data:audio/wav;base64"
    with wave.open(io.BytesIO(base64.b64decode(content))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        assert file.readframes(1000) == samples.tobytes()


def test_contents_lead_to_sections() -> None:
    parts = [Section(title=t, body=html.note(t)) for t in ("One", "Two & three")]
    root = parse(page("x", Html(""), parts))
    targets = {s.get("id"): words(s) for s in root.iter("section")}
    (nav,) = root.iter("nav")
    for link in nav:
        assert words(link) in targets[(link.get("href") or "")[1:]]
    assert len(nav) == 2
