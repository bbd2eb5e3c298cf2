"""Fetching a file from servers that behave and from servers that do not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from file_server import Served, serve

from pipeline.base.errors import DownloadError, UsageError
from pipeline.corpora import transfer
from pipeline.corpora.transfer import Patience, discard, fetch, part_of

CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is read before a connection breaks is on disk."""
    monkeypatch.setattr(transfer, "BLOCK_BYTES", 1000)


def patience(attempts: int = 3) -> tuple[Patience, list[float]]:
    """Patience that does not wait, and what it would have waited."""
    waits: list[float] = []
    return Patience(attempts=attempts, sleep=waits.append), waits


def fetched(served: Served, path: Path, attempts: int = 3, expected: int | None = None) -> bytes:
    fetch(f"{served.url}/f.zip", path, expected=expected, patience=patience(attempts)[0])
    return part_of(path).read_bytes()


def statuses(served: Served) -> list[int]:
    return [status for status, *_ in served.log]


def test_a_file_comes_in_one_request(tmp_path: Path) -> None:
    told = []
    with serve(CONTENT) as served:
        fetch(
            f"{served.url}/f.zip",
            tmp_path / "f.zip",
            expected=len(CONTENT),
            progress=lambda *state: told.append(state),
        )
    assert part_of(tmp_path / "f.zip").read_bytes() == CONTENT
    assert served.log == [(200, None, None, len(CONTENT))]
    assert told[-1] == (len(CONTENT), len(CONTENT), "")
    discard(tmp_path / "f.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("reset", [False, True])
def test_dropped_connections_go_on_at_the_byte(reset: bool, length: bool, tmp_path: Path) -> None:
    drops = [70_001, 1, 99_999, 50_000]
    with serve(CONTENT, drops=list(drops), reset=reset, length=length) as served:
        assert fetched(served, tmp_path / "f.zip") == CONTENT
    assert statuses(served) == [200, 206, 206, 206, 206]
    assert {condition for _, _, condition, _ in served.log[1:]} == {'"v1"'}
    if not reset:  # a torn-down connection may take with it what was on its way
        assert sum(sent for *_, sent in served.log) == len(CONTENT)
        at = [sum(drops[:i]) for i in range(1, 5)]
        assert [asked for _, asked, _, _ in served.log] == [None, *(f"bytes={n}-" for n in at)]


@pytest.mark.parametrize("seed", range(12))
def test_any_cuts_give_the_same_bytes(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    content = CONTENT[: rng.randrange(2000, 20_000)]
    drops = [rng.randrange(len(content)) for _ in range(6)]
    with serve(content, drops=drops, ranges=bool(seed % 4), etag=['"a"', None][seed % 2]) as served:
        assert fetched(served, tmp_path / "f.zip", attempts=8) == content


def test_a_server_without_ranges_sends_it_again(tmp_path: Path) -> None:
    with serve(CONTENT, ranges=False, drops=[200_000, 100_000]) as served:
        assert fetched(served, tmp_path / "f.zip") == CONTENT
    assert statuses(served) == [200, 200, 200]


@pytest.mark.parametrize("etag", ['"v1"', None, 'W/"v1"'])
def test_a_file_that_changes_in_between_is_begun_again(etag: str | None, tmp_path: Path) -> None:
    other = CONTENT[::-1]
    path = tmp_path / "f.zip"
    with serve(CONTENT, drops=[150_000], etag=etag) as served:
        with pytest.raises(DownloadError):
            fetched(served, path, attempts=0)
        assert part_of(path).stat().st_size == 150_000
        served.content, served.etag = other, etag and etag.replace("v1", "v2")
        served.last_modified = "Sun, 30 Aug 2020 10:00:00 GMT"
        assert fetched(served, path) == other
    assert statuses(served) == [200, 200]
    # A weak tag may stand for other bytes; then the date decides.
    strong = etag is not None and not etag.startswith("W/")
    assert served.log[1][2] == (etag if strong else "Sat, 29 Aug 2020 10:00:00 GMT")


def test_without_a_validator_nothing_is_trusted(tmp_path: Path) -> None:
    with serve(CONTENT, drops=[150_000], etag=None, last_modified=None) as served:
        assert fetched(served, tmp_path / "f.zip") == CONTENT
    assert [asked for _, asked, _, _ in served.log] == [None, None]


def test_patience_ends_and_the_next_command_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "f.zip"
    wait, waits = patience(attempts=2)
    with serve(CONTENT, drops=[100_000, 0, 0, 0]) as served:
        with pytest.raises(DownloadError, match=r"100000 bytes are kept in .*repeat the command"):
            fetch(f"{served.url}/f.zip", path, expected=None, patience=wait)
        assert statuses(served) == [200, 206, 206]
        assert waits == [1.0, 2.0]
        assert fetched(served, path) == CONTENT
    assert served.log[-1][1] == "bytes=100000-"


def test_waits_grow_and_are_capped(tmp_path: Path) -> None:
    waits: list[float] = []
    wait = Patience(attempts=6, first_wait_s=1.0, longest_wait_s=10.0, sleep=waits.append)
    with serve(CONTENT, statuses=[503] * 7) as served, pytest.raises(DownloadError, match="503"):
        fetch(f"{served.url}/f.zip", tmp_path / "f", expected=None, patience=wait)
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_server_that_always_drops_at_one_byte_cannot_keep_us(tmp_path: Path) -> None:
    with (
        serve(CONTENT, ranges=False, drops=[150_000] * 50) as served,
        pytest.raises(DownloadError, match="150000 of 300000"),
    ):
        fetched(served, tmp_path / "f.zip")
    assert len(served.log) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_cannot_get_better_is_said_at_once(status: int, tmp_path: Path) -> None:
    with (
        serve(CONTENT, statuses=[status]) as served,
        pytest.raises(DownloadError, match=f"{status}.*right address"),
    ):
        fetched(served, tmp_path / "f.zip")
    assert len(served.log) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_get_better_is_tried_again(status: int, tmp_path: Path) -> None:
    with serve(CONTENT, statuses=[status, status], drops=[9_000]) as served:
        assert fetched(served, tmp_path / "f.zip") == CONTENT
    assert statuses(served) == [status, status, 200, 206]


def test_another_size_is_refused_before_the_body(tmp_path: Path) -> None:
    with serve(CONTENT) as served, pytest.raises(DownloadError, match=r"300000 bytes long.*300001"):
        fetched(served, tmp_path / "f.zip", expected=len(CONTENT) + 1)
    assert list(tmp_path.iterdir()) == []


def test_more_than_expected_is_not_taken(tmp_path: Path) -> None:
    with serve(CONTENT, length=False) as served, pytest.raises(DownloadError, match="more than"):
        fetched(served, tmp_path / "f.zip", expected=1000)
    assert part_of(tmp_path / "f.zip").stat().st_size <= 1000


def test_less_than_expected_is_not_whole(tmp_path: Path) -> None:
    with serve(CONTENT, length=False) as served, pytest.raises(DownloadError):
        fetched(served, tmp_path / "f.zip", expected=len(CONTENT) + 1)
    assert {200, 416} == set(statuses(served))


def test_a_range_that_was_not_asked_for_is_not_appended(tmp_path: Path) -> None:
    with serve(CONTENT, drops=[150_000], shifted=-7) as served:
        assert fetched(served, tmp_path / "f.zip") == CONTENT
    assert statuses(served) == [200, 206, 200]


def test_a_part_beyond_the_end_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "f.zip"
    with serve(CONTENT, drops=[150_000]) as served:
        with pytest.raises(DownloadError):
            fetched(served, path, attempts=0)
        served.content = CONTENT[:100_000]  # under the same validator
        assert fetched(served, path) == CONTENT[:100_000]
    assert statuses(served) == [200, 416, 200]


def test_a_whole_part_needs_no_request(tmp_path: Path) -> None:
    for length in (True, False):
        path = tmp_path / f"{length}.zip"
        with serve(CONTENT, length=length) as served:
            assert fetched(served, path) == fetched(served, path) == CONTENT
        assert len(served.log) == 1


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"validator": null, "total": 150000}'])
def test_a_damaged_record_means_from_the_start(state: str, tmp_path: Path) -> None:
    path = tmp_path / "f.zip"
    part_of(path).write_bytes(b"x" * 150_000)
    path.with_name("f.zip.part.json").write_text(state)
    with serve(CONTENT) as served:
        assert fetched(served, path) == CONTENT


def test_no_server_and_no_web_address(tmp_path: Path) -> None:
    with serve(CONTENT) as served:
        gone = served.url
    with pytest.raises(DownloadError, match="no connection"):
        fetch(f"{gone}/f", tmp_path / "f", expected=None, patience=patience()[0])
    for url in ("file:///etc/passwd", "ftp://x/y", "/tmp/x", ""):
        with pytest.raises(UsageError, match="http"):
            fetch(url, tmp_path / "f", expected=None)
