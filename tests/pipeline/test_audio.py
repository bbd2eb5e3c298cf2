"""Decoding against librosa, whatever the block; broken headers and files are typed errors."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from pipeline import audio
from pipeline.audio import decode, probe
from pipeline.base.errors import AudioError

FORMATS = [
    (44_100, 2, "PCM_16", ".wav"),
    (48_000, 2, "PCM_16", ".wav"),
    (16_000, 1, "PCM_16", ".flac"),
    (16_000, 1, "PCM_16", ".wav"),
    (44_100, 2, "PCM_24", ".wav"),
    (44_100, 1, "PCM_24", ".flac"),
    (48_000, 1, "FLOAT", ".wav"),
    (22_050, 3, "PCM_16", ".wav"),
    (24_000, 2, "PCM_16", ".wav"),
    (44_100, 2, "PCM_U8", ".wav"),
    (44_100, 2, "PCM_16", ".aiff"),
]


def music(rate: int, channels: int, seconds: float = 5.0) -> np.ndarray:
    rng = np.random.default_rng(rate + channels)
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 440 * t) * np.exp(-(t % 1))
    sound = tone[:, None] * np.linspace(1, 0.5, channels)
    return (sound + 0.05 * rng.standard_normal((len(t), channels))).astype(np.float32)


def written(path: Path, rate: int, channels: int, subtype: str, seconds: float = 5.0) -> Path:
    soundfile.write(path, music(rate, channels, seconds), rate, subtype=subtype)
    return path


def all_of(path: Path, n: int) -> np.ndarray:
    return np.concatenate(list(decode(path, n)))


def reference(path: Path) -> np.ndarray:
    """What librosa loads, rounded to int16 by NumPy."""
    samples, _ = librosa.load(path, sr=24_000, mono=True, res_type="soxr_hq")
    return np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)


@pytest.mark.parametrize(("rate", "channels", "subtype", "suffix"), FORMATS)
def test_decoding_is_librosas_within_one_step(
    rate: int, channels: int, subtype: str, suffix: str, tmp_path: Path
) -> None:
    path = written(tmp_path / f"x{suffix}", rate, channels, subtype)
    header = probe(path)
    assert (header.sample_rate, header.channels, header.frames) == (rate, channels, 5 * rate)
    found = all_of(path, header.frames_24k)
    expected = reference(path)[: len(found)]
    assert found.dtype == np.int16
    assert len(found) == 5 * 24_000 == len(expected)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_block_boundaries_do_not_matter(rate: int, tmp_path: Path, monkeypatch) -> None:
    path = written(tmp_path / "x.wav", rate, 2, "PCM_16")
    whole = all_of(path, 100_000)
    for seconds in (1, 2, 5):
        monkeypatch.setattr(audio, "BLOCK_S", seconds)
        np.testing.assert_array_equal(all_of(path, 100_000), whole)


def test_a_shorter_request_is_a_prefix(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(audio, "BLOCK_S", 1)
    path = written(tmp_path / "x.wav", 44_100, 2, "PCM_16")
    whole = all_of(path, 120_000)
    for n in (1, 23_999, 24_000, 60_001):
        np.testing.assert_array_equal(all_of(path, n), whole[:n])


@pytest.mark.parametrize(
    ("rate", "channels", "subtype", "suffix"),
    [*FORMATS, (44_100, 2, "MPEG_LAYER_III", ".mp3"), (48_000, 2, "VORBIS", ".ogg")],
)
def test_pieces_are_the_whole_within_one_step_from_any_start(
    rate: int, channels: int, subtype: str, suffix: str, tmp_path: Path, monkeypatch
) -> None:
    """What a task in the middle of a recording decodes is what everyone else decodes there."""
    path = written(tmp_path / f"x{suffix}", rate, channels, subtype)
    whole = all_of(path, 120_000).astype(int)
    monkeypatch.setattr(audio, "PIECE_S", 1)
    pieces = all_of(path, 120_000)
    assert np.abs(pieces - whole).max() <= 1
    np.testing.assert_array_equal(pieces[:20_000], whole[:20_000])
    for start in (1, 23_999, 24_000, 60_001, 119_999):
        np.testing.assert_array_equal(
            np.concatenate(list(decode(path, 120_000, start))), pieces[start:]
        )


def test_only_the_pieces_that_are_asked_for_are_read(tmp_path: Path, monkeypatch) -> None:
    """The first three seconds are damaged (not a number): a start behind them does not notice."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 44_100 * 8).astype(np.float32)
    noise[: 44_100 * 3] = np.nan
    path = tmp_path / "x.wav"
    soundfile.write(path, noise, 44_100, subtype="FLOAT")
    monkeypatch.setattr(audio, "PIECE_S", 2)
    assert len(np.concatenate(list(decode(path, 24_000 * 8, 24_000 * 4)))) == 24_000 * 4
    with pytest.raises(AudioError, match="not finite"):
        all_of(path, 24_000 * 8)


def test_full_scale_is_clipped_not_wrapped(tmp_path: Path) -> None:
    loud = 1.5 * np.sign(np.sin(np.arange(48_000) / 50))
    soundfile.write(tmp_path / "x.wav", loud, 24_000, subtype="FLOAT")
    found = all_of(tmp_path / "x.wav", 48_000)
    assert set(np.unique(found)) <= {-32768, 0, 32767}
    np.testing.assert_array_equal(np.sign(found), np.sign(loud))


def test_a_tail_missing_up_to_a_quarter_second_is_zeros(tmp_path: Path) -> None:
    path = written(tmp_path / "x.wav", 24_000, 1, "PCM_16", seconds=4.8)
    found = all_of(path, 5 * 24_000)
    assert len(found) == 120_000
    assert not found[115_200:].any()
    assert found[115_000:115_200].any()


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_a_longer_missing_tail_is_a_failure(rate: int, tmp_path: Path) -> None:
    path = written(tmp_path / "x.wav", rate, 1, "PCM_16", seconds=4.7)
    with pytest.raises(AudioError, match=r"x.wav: audio ends 0.30 s before") as caught:
        all_of(path, 5 * 24_000)
    assert caught.value.kind == "truncated"


def refuse(path: Path) -> AudioError:
    """The error that the path gives when it is probed; nothing may be decoded."""
    with pytest.raises(AudioError) as caught:
        probe(path)
    assert str(path) in str(caught.value)
    return caught.value


def wav_header(
    rate: int = 24_000, channels: int = 1, bits: int = 16, code: int = 1, data: int = 48_000
) -> bytes:
    align = channels * bits // 8
    form = struct.pack("<HHIIHH", code, channels, rate, rate * align % 2**32, align % 2**16, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", data)
    return b"RIFF" + struct.pack("<I", 4 + len(body) + data & 0xFFFFFFFF) + body


PAYLOAD = b"\x01\x00" * 24_000
MUTATIONS = {
    **{f"rate {r}": wav_header(rate=r) for r in (0, 1, 100, 7_999, 384_001, 2**31, 2**32 - 1)},
    **{
        f"{c} channels": wav_header(channels=c, data=c * 20 or 100)
        for c in (0, 65, 255, 256, 1024, 65_535)
    },
    **{f"{b} bits": wav_header(bits=b) for b in (0, 65, 127, 128, 255, 65_535)},
    **{f"float of {b} bits": wav_header(bits=b, code=3) for b in (1, 8, 16, 24, 128)},
    **{f"code {c}": wav_header(code=c) for c in (0x00, 0x21, 0x99, 0xF1AC, 0xFFFF)},
    **{f"data longer by {n}": wav_header(data=48_000 + n) for n in (1, 2, 4_800, 48_000, 2**31)},
    "RF64 with sizes of another file": (
        b"RF64\xff\xff\xff\xffWAVEds64\x1c\x00\x00\x00"
        + struct.pack("<QQQI", 2**40, 2**40, 2**39, 0)
        + wav_header()[12:40]
        + b"\xff\xff\xff\xff"
    ),
    "ADPCM without its table": wav_header(code=2, bits=4),
    "IMA ADPCM without its table": wav_header(code=0x11, bits=4),
    "fmt cut": wav_header()[:16] + b"\x08\x00\x00\x00" + wav_header()[20:28] + wav_header()[36:],
    "fmt twice, data never": wav_header()[:36] + wav_header()[12:36],
    "a list longer than the file": wav_header()[:36] + b"LIST\xff\xff\xff\x7f",
    "unknown code": wav_header(code=0x1234),
    "mp3 in wav, no fact": wav_header(code=0x55),
    "data nearly 4 GiB": wav_header(data=0xFFFFFFF0),
    "no data": wav_header(data=0),
    "fmt longer than the file": wav_header()[:16] + b"\xff\xff\xff\x7f" + wav_header()[20:],
    "no fmt": wav_header().replace(b"fmt ", b"junk"),
    "no data chunk": wav_header().replace(b"data", b"junk"),
    "no WAVE": wav_header().replace(b"WAVE", b"EVAW"),
    "header only, cut": wav_header()[:30],
    "RIFF only": b"RIFF",
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_header_is_found_before_decoding(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(MUTATIONS[name] + (PAYLOAD if len(MUTATIONS[name]) > 40 else b""))
    assert refuse(path).kind in ("header", "truncated", "unreadable")


def test_there_are_many_of_them() -> None:
    assert len(set(MUTATIONS.values())) == len(MUTATIONS) >= 50


def test_the_unbroken_header_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(wav_header() + PAYLOAD)
    assert probe(tmp_path / "x.wav").frames == 24_000


def test_an_rf64_is_accepted_and_its_own_length_is_checked(tmp_path: Path) -> None:
    """The form in which a WAV passes 4 GiB; its true sizes lie in the chunk ``ds64``."""
    path = tmp_path / "x.wav"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 24_000)
    soundfile.write(path, noise, 24_000, subtype="PCM_16", format="RF64")
    raw = path.read_bytes()
    assert raw[:4] == b"RF64"
    assert len(all_of(path, 24_000)) == 24_000
    path.write_bytes(raw[:-1000])
    assert refuse(path).kind == "truncated"


def test_a_streamed_header_without_a_length_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(wav_header(data=0xFFFFFFFF) + PAYLOAD)
    assert probe(tmp_path / "x.wav").frames == 24_000


@pytest.mark.parametrize("position", range(0, 44, 2))
def test_a_changed_header_byte_never_escapes_as_another_error(
    position: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.wav"
    for value in (0x00, 0x7F, 0xFF):
        head = bytearray(wav_header())
        head[position] = value
        path.write_bytes(bytes(head) + PAYLOAD)
        found = None
        with contextlib.suppress(AudioError):
            found = all_of(path, min(probe(path).frames_24k, 48_000))
        assert found is None or 0 < len(found) <= 48_000


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("empty.wav", b""),
        ("text.wav", b"these are not the samples you are looking for\n" * 50),
        ("text.flac", b"fLaC but not really" * 50),
        ("headerless.raw", bytes(48_000)),
        ("zip.wav", b"PK\x03\x04" + bytes(1000)),
    ],
)
def test_files_that_are_no_audio(name: str, raw: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(raw)
    assert refuse(tmp_path / name).kind == "unreadable"


def test_missing_files(tmp_path: Path) -> None:
    assert refuse(tmp_path / "none.wav").kind == "missing"
    assert refuse(tmp_path).kind == "missing"
    assert refuse(tmp_path / ("long" * 100 + ".wav")).kind == "unreadable"


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_truncated_wav_is_found_from_its_header(cut: float, tmp_path: Path) -> None:
    path = written(tmp_path / "x.wav", 44_100, 2, "PCM_16")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * cut)])
    assert refuse(path).kind == "truncated"


@pytest.mark.parametrize("subtype", ["MS_ADPCM", "IMA_ADPCM"])
def test_adpcm_is_decoded_or_refused_when_cut(subtype: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.wav", 24_000, 1, subtype)
    assert len(all_of(path, 96_000)) == 96_000
    path.write_bytes(path.read_bytes()[:20_000])
    assert refuse(path).kind == "truncated"


@pytest.mark.parametrize(("name", "form"), [("x.w64", "W64"), ("x.aiff", None)])
def test_other_containers_cut_short_fail_when_their_samples_run_out(
    name: str, form: str | None, tmp_path: Path
) -> None:
    path = tmp_path / name
    soundfile.write(path, music(24_000, 1), 24_000, subtype="PCM_16", format=form)
    assert len(all_of(path, 120_000)) == 120_000
    path.write_bytes(path.read_bytes()[:120_000])
    assert probe(path).frames < 120_000  # which the plan compares with the metadata
    with pytest.raises(AudioError, match="audio ends"):
        all_of(path, 120_000)


@pytest.mark.parametrize("seed", range(10))
def test_a_flac_with_one_wrong_bit_is_an_error_never_silence(seed: int, tmp_path: Path) -> None:
    path = written(tmp_path / "x.flac", 16_000, 1, "PCM_16")
    raw = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    raw[rng.integers(len(raw) // 10, len(raw) * 9 // 10)] ^= 1 << rng.integers(8)
    path.write_bytes(raw)
    assert probe(path).frames == 80_000
    with pytest.raises(AudioError, match="decoding failed"):
        all_of(path, 120_000)


def test_a_flac_cut_short_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "x.flac", 16_000, 1, "PCM_16")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert probe(path).frames == 80_000
    with pytest.raises(AudioError):
        all_of(path, 120_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_an_error(value: float, tmp_path: Path) -> None:
    samples = music(24_000, 1)
    samples[50_000] = value
    soundfile.write(tmp_path / "x.wav", samples, 24_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite") as caught:
        all_of(tmp_path / "x.wav", 120_000)
    assert caught.value.kind == "not-finite"


def test_a_file_that_vanishes_between_probe_and_decode_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="decoding failed"):
        all_of(tmp_path / "gone.wav", 1000)
