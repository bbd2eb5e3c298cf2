"""Where points lie, in two dimensions and in numbers: PCA, t-SNE, neighbours, the gap between sides.

Points are float64 [2 n, 256]: the audio embeddings of n segments, then their MIDI embeddings.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import MissingExtra
from trainer.analyses.contract import Plain

SEED = 42
PERPLEXITY, ITERATIONS = 30, 1000
NEIGHBOURS = 10
BLOCK = 512  # rows of the similarity matrix that are in memory at once

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def principal(points: Floats) -> Plain:
    """Places on the first two principal components, and their share of the variance."""
    centred = points - points.mean(axis=0)
    _, lengths, components = np.linalg.svd(centred, full_matrices=False)
    # A component's sign is arbitrary; its largest entry decides.
    signs = np.sign(components[np.arange(2), np.abs(components[:2]).argmax(axis=1)])
    total = max(float(np.square(lengths).sum()), 1e-30)
    return {
        **_places(centred @ (components[:2] * signs[:, None]).T),
        "variance": float(np.square(lengths[:2]).sum()) / total,
    }


def t_sne(points: Floats) -> Plain:
    """Places by t-SNE, and the Kullback-Leibler divergence that is left.

    Raises
    ------
    MissingExtra
        when scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra("scikit-learn", "analysis") from None
    method = TSNE(perplexity=PERPLEXITY, max_iter=ITERATIONS, random_state=SEED)
    # Threads add in another order every time, and 1,000 iterations make that visible.
    with threadpool_limits(1):
        places = method.fit_transform(points)
    return {**_places(places), "divergence": float(method.kl_divergence_)}


def neighbours(points: Floats, recording: Ints, composer: Ints) -> Plain:
    """Who is among the 10 nearest of a point, over all points, its own pair left out.

    Parameters
    ----------
    points : [2 n, 256], of length 1, so that cosine and distance give the same neighbours
    recording, composer : of the segments [n]

    Returns
    -------
    ``other_side, same_recording, same_composer``, each with ``share`` and ``chance``
    """
    n = len(recording)
    hits = np.zeros(3, np.int64)
    for at in range(0, 2 * n, BLOCK):
        rows = np.arange(at, min(at + BLOCK, 2 * n))
        similarity = points[rows] @ points.T
        for left_out in (rows, (rows + n) % (2 * n)):
            similarity[np.arange(len(rows)), left_out] = -np.inf
        near = np.argpartition(-similarity, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        own = rows[:, None]
        hits += [
            np.sum(near // n != own // n),
            np.sum(recording[near % n] == recording[own % n]),
            np.sum(composer[near % n] == composer[own % n]),
        ]
    chances = (0.5, _same_by_chance(recording), _same_by_chance(composer))
    names = ("other_side", "same_recording", "same_composer")
    return {
        name: {"share": int(hit) / (2 * n * NEIGHBOURS), "chance": chance}
        for name, hit, chance in zip(names, hits, chances, strict=True)
    }


def gap(points: Floats) -> Plain:
    """How far the sides lie apart: ``centroids``, ``pairs`` (mean), and their ratio ``gap``."""
    audio, midi = np.split(points, 2)
    centroids = float(np.linalg.norm(audio.mean(axis=0) - midi.mean(axis=0)))
    pairs = float(np.linalg.norm(audio - midi, axis=1).mean())
    return {"centroids": centroids, "pairs": pairs, "gap": centroids / pairs if pairs else 0.0}


def _same_by_chance(codes: Ints) -> float:
    """How often another segment, drawn at random, has the same code."""
    counts = np.bincount(codes)
    return float((counts * (counts - 1)).sum() / (len(codes) * (len(codes) - 1)))


def _places(places: Floats) -> Plain:
    """Per side its places [n, 2], rounded to 4 digits."""
    audio, midi = np.split(np.round(places.astype(np.float64), 4), 2)
    return {"audio": audio.tolist(), "midi": midi.tolist()}
