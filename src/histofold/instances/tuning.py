"""Scores of every setting of a decoder on every image: what tuning and cross-fitting choose from.

Each image is decoded once per distinct setting; settings that agree on a decoder's first steps share their result, and
those that differ in the least size of an instance share their overlaps with the truth, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.errors import HistofoldError
from histofold.instances.base import Bands, Decoder, select
from histofold.instances.cleanup import Labels
from histofold.parallel import each

BandsSource = Path | Bands | Callable[[], Bands]
LabelsSource = NDArray[Any] | Callable[[], NDArray[Any]]
Item = tuple[BandsSource, LabelsSource]
"""Where an image's bands come from (band file, arrays, or a function that gives them) and its true labels."""
Metric = str | Callable[[NDArray[Any], Labels], float]


def score_grid(
    items: Sequence[Item],
    name: str,
    grid: Sequence[Mapping[str, Any]],
    metric: Metric = "dsb",
    workers: int = 0,
) -> NDArray[np.float64]:
    """Score every setting of decoder `name` on every item; (n_items, n_settings).

    Args:
        items: (bands, labels) of each image. Functions among them have to be picklable: they run in the workers.
        name: of the decoder.
        grid: settings as option dicts, as `instances.grid(name)` gives them.
        metric: name of an instance score, or a picklable function (truth, prediction) → score.
        workers: processes; 0: one for each core.

    Raises:
        ConfigError: unknown decoder, option or metric.
        DataError: an image cannot be read or does not fit its labels.
    """
    decoders = [instances.build(name, **settings) for settings in grid]
    if isinstance(metric, str):
        metrics.named_score(metric)  # refuse an unknown name before any work
    scores = np.full((len(items), len(decoders)), np.nan)
    work = partial(_score_item, decoders=decoders, metric=metric)
    for (index, _), result in each(work, list(enumerate(items)), workers, text=f"tune {name}", unit="image"):
        if isinstance(result, HistofoldError):
            raise result
        if isinstance(result, Exception):
            raise RuntimeError(f"tuning failed on image {index} of {len(items)}") from result
        scores[index] = result
    return scores


def _score_item(numbered: tuple[int, Item], decoders: Sequence[Decoder], metric: Metric) -> NDArray[np.float64]:
    _, (bands_source, labels_source) = numbered
    bands, truth = _bands(bands_source), _labels(labels_source)
    if not isinstance(metric, str):
        scores = np.empty(len(decoders))
        for chosen, labels in decode_all(bands, decoders):
            scores[chosen] = float(metric(truth, labels))
        return scores
    return _named_scores(bands, truth, decoders, metrics.named_score(metric))


def _named_scores(
    bands: Bands, truth: NDArray[Any], decoders: Sequence[Decoder], score: Callable[[metrics.Contingency], float]
) -> NDArray[np.float64]:
    """Scores of all settings; those that differ in `min_size` alone share their labels and the table of overlaps.

    Dropping small instances is the last step of a decoder, and on the table it costs nothing.
    """
    whole = [_with_small(decoder) for decoder in decoders]
    scores = np.empty(len(decoders))
    for chosen, labels in decode_all(bands, whole):
        table = metrics.contingency(truth, labels)
        sizes = np.array([getattr(decoders[at], "min_size", 0) for at in chosen])
        for size in np.unique(sizes):
            scores[np.array(chosen)[sizes == size]] = score(table.without_small(int(size)))
    return scores


def _with_small(decoder: Decoder) -> Decoder:
    """The decoder that drops nothing, where dropping is its last step."""
    last = decoder.steps()[-1][1]
    return replace(decoder, min_size=0) if last == ("min_size",) else decoder  # type: ignore[type-var]


def _bands(source: BandsSource) -> Bands:
    if isinstance(source, Path):
        # Here and not above: tuning on arrays needs no TIFF reader.
        from histofold.inference.bandfile import BandFile

        with BandFile(source) as file:
            return file.read()
    return source() if callable(source) else source


def _labels(source: LabelsSource) -> NDArray[Any]:
    return source() if callable(source) else source


def decode_all(bands: Bands, decoders: Sequence[Decoder]) -> Iterator[tuple[list[int], Labels]]:
    """Decode one image with many settings of one decoder; yields (indices of equal settings, labels).

    Settings are visited in the order of their steps' options, and the results along the current path are kept: each
    step runs once for all settings that agree up to it, and no more than one result a step is held in memory.
    """
    keys = [_keys(decoder) for decoder in decoders]
    order = sorted(range(len(decoders)), key=lambda at: repr(keys[at]))
    path: list[tuple[Any, Any]] = []  # (key, result) of each step done
    same: list[int] = []
    for position, at in enumerate(order):
        same.append(at)
        if position + 1 < len(order) and keys[order[position + 1]] == keys[at]:
            continue
        shared = _shared([key for key, _ in path], keys[at])
        del path[shared:]
        value: Any = path[-1][1] if path else select(bands, decoders[at].needs)
        for (function, _), key in list(zip(decoders[at].steps(), keys[at], strict=True))[shared:]:
            value = function(value)
            path.append((key, value))
        yield same, value
        same = []


def _keys(decoder: Decoder) -> list[tuple[Any, ...]]:
    """Values of the options that each step reads."""
    return [tuple(getattr(decoder, option) for option in options) for _, options in decoder.steps()]


def _shared(done: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> int:
    """How many first steps agree."""
    count = 0
    while count < len(done) and done[count] == wanted[count]:
        count += 1
    return count
