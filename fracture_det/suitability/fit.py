"""Fit the head, freeze its threshold on validation pictures, and count what it does on every source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.neural_network import MLPClassifier
from tqdm import tqdm

from fracture_det.structures.radiograph import MAX_PIXELS, Pixels
from fracture_det.suitability.assess import MIN_SIDE_PX
from fracture_det.suitability.augmentation import alter, grey_of
from fracture_det.suitability.drawn import draw_document, draw_other
from fracture_det.suitability.features import Values, picture_features, shrink
from fracture_det.suitability.head import CLIP, DOCUMENT, KINDS, LIMB, OTHER, PHOTOGRAPH, Head
from fracture_det.suitability.sources import PARTS, TRAIN, VAL, Picture

PLAIN, GREY, ALTERED = "as it is", "grey", "altered"
DRAWN = {DOCUMENT: ("drawn pages", draw_document), OTHER: ("drawn shapes", draw_other)}
HIDDEN_UNITS, DECAY, EPOCHS, BATCH = 64, 1.0, 20, 512
# The weight of each kind, and of each source of films within its kind; sources of other pictures count by number.
KIND_WEIGHTS = {LIMB: 2.8, PHOTOGRAPH: 3.0, DOCUMENT: 0.8, OTHER: 1.0}
# Of the films of each validation source at most this share is refused; the threshold is the highest that does so.
REFUSED_FILMS = 0.004
LONGEST_PX = 1024


@dataclass(frozen=True)
class Sample:
    """The features (F,) of one version of a picture."""

    source: str
    kind: str
    part: str
    version: str
    features: Values


@dataclass(frozen=True)
class Count:
    """How many pictures of a source are refused."""

    part: str
    kind: str
    source: str
    version: str
    refused: int
    total: int


def read_picture(picture: Picture) -> Pixels | None:
    """Return pixels (H, W, 3) uint8 RGB of at most LONGEST_PX, transparent places grey; None for what cannot be read.

    These are pictures of any kind, so they are read as a browser would, and not as strictly as radiographs.
    """
    try:
        with Image.open(picture.path) as image:
            if image.width * image.height > MAX_PIXELS or min(image.size) < MIN_SIDE_PX:
                return None
            image.draft("RGB", (LONGEST_PX, LONGEST_PX))
            solid: Image.Image = image
            if image.mode in ("RGBA", "LA", "P", "PA"):
                level = sum(picture.path.name.encode()) % 3 * 127
                solid = Image.new("RGBA", image.size, (level, level, level, 255))
                solid.alpha_composite(image.convert("RGBA"))
            elif image.mode.startswith("I"):
                deep = np.asarray(image, dtype=np.float64)
                solid = Image.fromarray((255 * (deep - deep.min()) / (np.ptp(deep) + 1)).astype(np.uint8))
            solid = solid.convert("RGB")
            solid.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.BOX)
            return np.asarray(solid)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def versions(pixels: Pixels, kind: str, rng: np.random.Generator) -> Iterator[tuple[str, Pixels]]:
    """Yield a picture as it is, without colours unless it is a film, and twice altered."""
    yield PLAIN, pixels
    if kind != LIMB:
        yield GREY, grey_of(pixels)
    yield ALTERED, alter(pixels, rng)
    yield ALTERED, alter(pixels if kind == LIMB else grey_of(pixels), rng)


def samples_of(
    pictures: Sequence[Picture], drawn: Mapping[str, int], *, seed: int = 0, workers: int = 1
) -> tuple[list[Sample], list[Picture]]:
    """Return the samples of all pictures and of `drawn` ones (part -> number), and the pictures that cannot be read.

    workers: processes. The samples depend on `seed` alone.
    """
    samples: list[Sample] = []
    unread: list[Picture] = []
    tasks = [(picture, (seed, index)) for index, picture in enumerate(pictures)]
    with ProcessPoolExecutor(workers) as pool:
        found = pool.map(_samples_of_file, tasks, chunksize=16)
        for picture, of_picture in zip(pictures, tqdm(found, total=len(pictures), unit="picture"), strict=True):
            samples += of_picture
            if not of_picture:
                unread.append(picture)
    for part, kind in product(PARTS, DRAWN):
        name, draw = DRAWN[kind]
        for number in range(drawn.get(part, 0)):
            rng = np.random.default_rng((seed, 1 + PARTS.index(part), KINDS.index(kind), number))
            samples += _versions_as_samples(Picture(name, kind, part, Path()), draw(rng), rng)
    return samples, unread


def _samples_of_file(task: tuple[Picture, tuple[int, int]]) -> list[Sample]:
    picture, seed = task
    pixels = read_picture(picture)
    return [] if pixels is None else _versions_as_samples(picture, pixels, np.random.default_rng(seed))


def _versions_as_samples(picture: Picture, pixels: Pixels, rng: np.random.Generator) -> list[Sample]:
    return [
        Sample(
            picture.source, picture.kind, picture.part, version, picture_features(shrink(np.ascontiguousarray(seen)))
        )
        for version, seen in versions(pixels, picture.kind, rng)
    ]


def fit_head(samples: Sequence[Sample], *, seed: int = 0) -> Head:
    """Fit the head on the training samples, and its threshold on the films among the validation samples."""
    training = [sample for sample in samples if sample.part == TRAIN]
    features = np.stack([sample.features for sample in training])
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-3
    standard = np.clip((features - mean) / scale, -CLIP, CLIP)
    model = MLPClassifier(
        (HIDDEN_UNITS,),
        alpha=DECAY,
        batch_size=min(BATCH, len(training)),
        learning_rate_init=2e-3,
        max_iter=EPOCHS,
        tol=0,
        random_state=seed,
    )
    kinds = np.array([KINDS.index(sample.kind) for sample in training])
    weights = _weights(training)
    for _ in range(EPOCHS):  # one pass each: fit() would warn that it could go on
        model.partial_fit(standard, kinds, classes=range(len(KINDS)), sample_weight=weights)
    hidden, out = model.coefs_
    counts = {part: dict(Counter(s.source for s in samples if s.part == part and s.version == PLAIN)) for part in PARTS}
    head = Head(mean, scale, hidden.T, model.intercepts_[0], out.T, model.intercepts_[1], 0.5, counts)
    return Head(**{**vars(head), "threshold": choose_threshold(head, samples)})


def choose_threshold(head: Head, samples: Sequence[Sample]) -> float:
    """Return the highest threshold at which at most REFUSED_FILMS of each validation source of films are refused."""
    films = [sample for sample in samples if (sample.part, sample.kind, sample.version) == (VAL, LIMB, PLAIN)]
    lowest = 1.0
    for source in {sample.source for sample in films}:
        of_source = np.stack([sample.features for sample in films if sample.source == source])
        scores = np.sort(head.probabilities(of_source)[:, 0])
        lowest = min(lowest, float(scores[int(REFUSED_FILMS * len(scores))]))
    return round(lowest - 0.0005, 3)


def count_refused(head: Head, samples: Sequence[Sample]) -> list[Count]:
    """Return how many samples the head refuses, by part, source and version."""
    rows: dict[tuple[str, str, str, str], list[bool]] = {}
    for sample in samples:
        refused = bool(head.probabilities(sample.features)[KINDS.index(LIMB)] < head.threshold)
        rows.setdefault((sample.part, sample.kind, sample.source, sample.version), []).append(refused)
    order = {name: index for index, name in enumerate((*PARTS, *KINDS))}
    keys = sorted(rows, key=lambda key: (order[key[0]], order[key[1]], key[2], key[3]))
    return [Count(*key, sum(rows[key]), len(rows[key])) for key in keys]


def _weights(samples: Sequence[Sample]) -> Values:
    """Return a weight (N,) of mean 1 for each sample: kinds by KIND_WEIGHTS, sources of films alike."""
    keys = [(sample.kind, sample.source if sample.kind == LIMB else "") for sample in samples]
    counts = Counter(keys)
    n_films = sum(1 for kind, _ in counts if kind == LIMB)
    shares = {key: KIND_WEIGHTS[key[0]] / (n_films if key[0] == LIMB else 1) / count for key, count in counts.items()}
    weights = np.array([shares[key] for key in keys])
    return np.asarray(weights * len(weights) / weights.sum(), dtype=np.float64)
