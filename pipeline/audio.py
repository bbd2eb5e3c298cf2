"""Recordings → 24 kHz mono int16, in bounded memory.

One recording is decoded in blocks, down-mixed by channel mean and resampled as a whole (soxr, HQ);
the reference resamples every 4-second excerpt for itself. The result is rounded to int16: full scale
is 32,768, values are clipped to [-32768, 32767]. Anyone can recompute every descriptor from it.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import AudioError, MissingExtra
from pipeline.base.jit import kernel
from pipeline.spectral import SAMPLE_RATE

VERSION = 1  # counts up when decoded samples change: part of a store's identity
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


def decode(path: Path, n_samples: int) -> Iterator[Int16Array]:
    """The first ``n_samples`` at 24 kHz mono, int16, in blocks of at most a few seconds.

    Only as much of the file is read as that takes. If the file ends up to 0.25 s early, zeros fill
    the rest.

    Raises
    ------
    AudioError
        kinds ``unreadable``, ``not-finite``, ``truncated`` (ends more than 0.25 s early).
    """
    soundfile, soxr = _soundfile(), _soxr()
    made = 0
    try:
        with soundfile.SoundFile(str(path)) as file:
            resample = _resampler(soxr, file.samplerate)
            dtype = "int16" if file.subtype in ("PCM_16", "PCM_S8", "PCM_U8") else "float32"
            block = BLOCK_S * file.samplerate
            buffer = np.empty((block, file.channels), dtype)
            while made < n_samples:
                frames = file.read(out=buffer, dtype=dtype, always_2d=True)
                if dtype == "float32" and not np.isfinite(frames).all():
                    raise AudioError(
                        f"{path}: holds samples that are not finite numbers", kind="not-finite"
                    )
                out = resample(_to_mono(frames), len(frames) < block)
                out = out[: n_samples - made]
                made += len(out)
                if len(out):
                    yield _to_int16(out)
                if len(frames) < block:
                    break
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{path}: decoding failed ({_reason(error)})", kind="unreadable") from None
    if made < n_samples:
        if n_samples - made > PAD_LIMIT_SAMPLES:
            raise AudioError(
                f"{path}: audio ends {(n_samples - made) / SAMPLE_RATE:.2f} s before the metadata's "
                "duration; the file is truncated or the duration is wrong",
                kind="truncated",
            )
        yield np.zeros(n_samples - made, np.int16)


def _resampler(soxr: Any, rate: int) -> Any:
    if rate == SAMPLE_RATE:
        return lambda mono, last: mono
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    return lambda mono, last: stream.resample_chunk(mono, last=last)


def _to_mono(frames: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Channel mean, float32 in [-1, 1]: [n, channels] int16 or float32 -> [n]."""
    mono = np.empty(len(frames), np.float32)
    full_scale = 32768.0 if frames.dtype == np.int16 else 1.0
    _channel_mean(frames, np.float32(1.0 / (full_scale * frames.shape[1])), mono)
    return mono


def _to_int16(samples: npt.NDArray[np.float32]) -> Int16Array:
    out = np.empty(len(samples), np.int16)
    _round_to_int16(samples, out)
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
def _round_to_int16(samples, out):  # type: ignore[no-untyped-def]
    """Nearest int16 with saturation; full scale is 32,768."""
    for i in range(samples.shape[0]):
        value = np.rint(samples[i] * np.float32(32768.0))
        out[i] = np.int16(min(max(value, np.float32(-32768.0)), np.float32(32767.0)))


def _check_riff(path: Path) -> None:
    """Libsndfile shortens a WAV whose data chunk is longer than the file; that is a failure here."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return
        while len(chunk := handle.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":
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
