"""Recordings → 24 kHz mono int16, in bounded memory.

A recording is decoded in pieces of one minute, down-mixed by channel mean and resampled (soxr, HQ);
the reference resamples every 4-second excerpt for itself. The result is rounded to int16: full scale
is 32,768, values are clipped to [-32768, 32767]. Anyone can recompute every descriptor from it.

Each piece is reached by seeking and gets a little of its neighbours' sound, so that the filter is
warm at its edges: only the seconds that are asked for are read, from wherever they begin, and a
piece has the same samples whoever asks. Against resampling the whole file at once, one sample in a
thousand differs by one unit of int16 (at odd rates such as 44,099 Hz, one in ten by up to three).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import struct
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import AudioError, MissingExtra
from pipeline.base.jit import kernel
from pipeline.spectral import SAMPLE_RATE

VERSION = 2  # counts up when decoded samples change: part of a store's identity
PIECE_S = 60
MARGIN_S = 0.1  # soxr's HQ filter reaches 10 ms at 8 kHz, less above
BLOCK_S = 5  # stays in the processor's cache
MIN_RATE, MAX_RATE = 8_000, 384_000
MAX_CHANNELS = 64
# A missing tail up to this long is padded with zeros and noted; more is a failure.
PAD_LIMIT_SAMPLES = SAMPLE_RATE // 4

Int16Array = npt.NDArray[np.int16]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AudioHeader:
    """What a file's header says, checked.

    Attributes
    ----------
    sample_rate : Hz
    channels, frames : counts
    subtype : libsndfile's name of the sample format, for example ``PCM_16``
    """

    sample_rate: int
    channels: int
    frames: int
    subtype: str

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.frames / self.sample_rate

    @property
    def frames_24k(self) -> int:
        """Whole samples at 24 kHz."""
        return self.frames * SAMPLE_RATE // self.sample_rate


def probe(path: Path) -> AudioHeader:
    """Read and check the header of any file libsndfile reads.

    Raises
    ------
    AudioError
        kinds ``missing``, ``unreadable``, ``truncated``, ``header``.
    """
    soundfile = _soundfile()
    try:
        if not path.is_file():
            raise AudioError(f"{path}: audio file is missing", kind="missing")
        _check_riff(path)
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: headerless .raw
        raise AudioError(
            f"{path}: cannot be read as audio ({_reason(error)})", kind="unreadable"
        ) from None
    if not MIN_RATE <= info.samplerate <= MAX_RATE:
        raise AudioError(
            f"{path}: sample rate {info.samplerate} Hz is not supported", kind="header"
        )
    if not 1 <= info.channels <= MAX_CHANNELS:
        raise AudioError(f"{path}: {info.channels} channels are not supported", kind="header")
    if info.frames <= 0:
        raise AudioError(f"{path}: holds no audio", kind="header")
    return AudioHeader(
        sample_rate=info.samplerate,
        channels=info.channels,
        frames=info.frames,
        subtype=info.subtype,
    )


def decode(path: Path, n_samples: int, start: int = 0) -> Generator[Int16Array]:
    """Samples ``[start, n_samples)`` at 24 kHz mono, int16, in blocks of at most a few seconds.

    Only the pieces that hold them are read. If the file ends up to 0.25 s early, zeros fill the rest.

    Raises
    ------
    AudioError
        kinds ``unreadable``, ``not-finite``, ``truncated`` (ends more than 0.25 s early).
    """
    at = start
    while at < n_samples:
        begin = at // (PIECE_S * SAMPLE_RATE) * PIECE_S * SAMPLE_RATE
        end = min(begin + PIECE_S * SAMPLE_RATE, n_samples)
        try:
            with contextlib.closing(_decode_piece(path, begin, end)) as blocks:
                for samples in blocks:
                    part = samples[max(0, at - begin) :]
                    begin += len(samples)
                    at += len(part)
                    if len(part):
                        yield part
        except (_soundfile().LibsndfileError, OSError) as error:
            raise AudioError(
                f"{path}: decoding failed ({_reason(error)})", kind="unreadable"
            ) from None
        if at < end:
            break
    if at < n_samples:
        if n_samples - at > PAD_LIMIT_SAMPLES:
            raise AudioError(
                f"{path}: audio ends {(n_samples - at) / SAMPLE_RATE:.2f} s before the metadata's "
                "duration; the file is truncated or the duration is wrong",
                kind="truncated",
            )
        yield np.zeros(n_samples - at, np.int16)


def _decode_piece(path: Path, begin: int, end: int) -> Generator[Int16Array]:
    """Samples ``[begin, end)`` of the 24 kHz timeline, fewer where the file ends.

    ``begin`` is a whole number of seconds. The filter starts on a margin before the piece; both
    begin where a file's sample and a sample at 24 kHz fall on one instant, so that all pieces lie on
    one grid. The file is opened anew: where an MP3 decoder has been before is heard in what follows.
    """
    with _soundfile().SoundFile(str(path)) as file:
        rate = file.samplerate
        common = math.gcd(rate, SAMPLE_RATE)
        margin = math.ceil(MARGIN_S * common)  # in steps of rate / common frames
        lead = min(margin * (SAMPLE_RATE // common), begin)
        first = (begin - lead) * rate // SAMPLE_RATE
        left = -(-(end * rate) // SAMPLE_RATE) + margin * (rate // common) - first
        dtype = "int16" if file.subtype in ("PCM_16", "PCM_S8", "PCM_U8") else "float32"
        buffer = np.empty((min(BLOCK_S * rate, left), file.channels), dtype)
        resample = _resampler(rate)
        file.seek(min(first, file.frames))
        at = begin - lead
        while left and at < end:
            wanted = min(len(buffer), left)
            frames = file.read(out=buffer[:wanted], dtype=dtype, always_2d=True)
            if dtype == "float32" and not np.isfinite(frames).all():
                raise AudioError(
                    f"{path}: holds samples that are not finite numbers", kind="not-finite"
                )
            left = left - wanted if len(frames) == wanted else 0
            out = resample(_to_mono(frames), left == 0)
            at, out = at + len(out), out[max(0, begin - at) : end - at]
            if len(out):
                yield to_int16(out)


def _resampler(rate: int) -> Any:
    if rate == SAMPLE_RATE:
        return lambda mono, last: mono
    stream = _soxr().ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    return lambda mono, last: stream.resample_chunk(mono, last=last)


def _to_mono(frames: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Channel mean, float32 in [-1, 1]: [n, channels] int16 or float32 -> [n]."""
    mono = np.empty(len(frames), np.float32)
    full_scale = 32768.0 if frames.dtype == np.int16 else 1.0
    _channel_mean(frames, np.float32(1.0 / (full_scale * frames.shape[1])), mono)
    return mono


def to_int16(samples: npt.NDArray[np.float32]) -> Int16Array:
    """Rounded, saturating; full scale is 32,768."""
    out = np.empty(len(samples), np.int16)
    _round_int16(samples, out)
    return out


@kernel
def _channel_mean(frames, scale, out):  # type: ignore[no-untyped-def]
    """out[n] = scale · Σ_channels frames[n, c]."""
    if frames.shape[1] == 2:  # spelled out, so that it is vectorised
        for i in range(out.shape[0]):
            out[i] = (np.float32(frames[i, 0]) + np.float32(frames[i, 1])) * scale
    else:
        for i in range(out.shape[0]):
            total = np.float32(0.0)
            for c in range(frames.shape[1]):
                total += np.float32(frames[i, c])
            out[i] = total * scale


@kernel
def _round_int16(samples, out):  # type: ignore[no-untyped-def]
    """Nearest int16 with saturation; full scale is 32,768."""
    for i in range(samples.shape[0]):
        value = np.rint(samples[i] * np.float32(32768.0))
        out[i] = np.int16(min(max(value, np.float32(-32768.0)), np.float32(32767.0)))


def _check_riff(path: Path) -> None:
    """Libsndfile shortens a WAV whose data chunk is longer than the file; that is a failure here."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(12)
        if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
            return
        unstated = 0xFFFFFFFF  # of a stream, or (RF64) of more than 4 GiB: then ds64 has it
        while len(chunk := handle.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            if name == b"ds64" and head[:4] == b"RF64" and length >= 16:
                _, unstated = struct.unpack("<QQ", handle.read(16).ljust(16, b"\0"))
                length -= 16
            if name == b"data":
                length = unstated if length == 0xFFFFFFFF else length
                if length != 0xFFFFFFFF and handle.tell() + length > size:
                    missing = handle.tell() + length - size
                    raise AudioError(
                        f"{path}: truncated, the header promises {missing} bytes more than there are",
                        kind="truncated",
                    )
                return
            handle.seek(length + length % 2, 1)


def _reason(error: Exception) -> str:
    return str(error).rpartition(": ")[2].rstrip(".") or type(error).__name__


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError:
        raise MissingExtra("soundfile", "features") from None
    return soundfile


def _soxr() -> Any:
    try:
        import soxr
    except ImportError:
        raise MissingExtra("soxr", "features") from None
    return soxr
