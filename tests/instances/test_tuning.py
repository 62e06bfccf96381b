"""The search over settings: each distinct step once, the same scores as one decoding at a time, any number of cores."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import instances, metrics, targets
from histofold.errors import ConfigError, DataError
from histofold.instances import tuning
from histofold.instances.watershed import Watershed

Labels = NDArray[np.int32]
Bands = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Drawn:
    """An image that is drawn in the worker: bands with noise, or the truth."""

    seed: int
    truth: bool

    def __call__(self) -> Any:
        rng = np.random.default_rng(self.seed)
        y, x = np.indices((80, 90))
        labels = np.zeros((80, 90), np.int32)
        for label in range(1, 20):
            centre = rng.uniform(0, 80, 2)
            labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= rng.uniform(4, 9) ** 2] = label
        if self.truth:
            return labels
        encoded = targets.build("border").encode(labels)
        noisy = np.clip(encoded * 0.8 + rng.normal(0.1, 0.1, encoded.shape), 0, 1).astype(np.float32)
        return {"foreground": noisy[0], "border": noisy[1]}


ITEMS = [(Drawn(seed, False), Drawn(seed, True)) for seed in range(4)]


def _aji(truth: NDArray[Any], prediction: Labels) -> float:
    return metrics.instance_scores(truth, prediction)["aji"]


@pytest.mark.parametrize("name", ["watershed", "threshold", "none"])
def test_scores_are_those_of_decoding_each_setting_by_itself(name: str) -> None:
    grid = instances.grid(name)[:: 7 if name == "watershed" else 3]
    scores = tuning.score_grid(ITEMS, name, grid, workers=1)
    assert scores.shape == (len(ITEMS), len(grid))
    for row, (bands, truth) in zip(scores, ITEMS, strict=True):
        expected = [metrics.dsb(truth(), instances.build(name, **setting)(bands())) for setting in grid]
        assert row.tolist() == expected


def test_processes_give_the_same_scores_for_any_metric() -> None:
    grid = instances.grid("watershed")[::40]
    one = tuning.score_grid(ITEMS, "watershed", grid, metric=_aji, workers=1)
    arrays = [(bands(), truth()) for bands, truth in ITEMS]
    assert np.array_equal(one, tuning.score_grid(arrays, "watershed", grid, metric="aji", workers=2))


def test_steps_run_once_for_what_settings_share(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"_seed": 0, "_grow": 0, "_drop": 0}

    def counted(original: Callable[..., Any], name: str, *args: Any) -> Any:
        calls[name] += 1
        return original(*args)

    for name in calls:
        original = getattr(Watershed, name)
        monkeypatch.setattr(Watershed, name, lambda self, value, o=original, n=name: counted(o, n, self, value))
    grid = [
        {"core": core, "threshold": threshold, "min_size": size}
        for size in (5, 10, 20)
        for threshold in (0.4, 0.5, 0.6)
        for core in (0.4, 0.6)
    ]
    tuning.score_grid(ITEMS[:1], "watershed", [*grid, *grid], workers=1)
    # The least size is applied to the table of overlaps.
    assert calls == {"_seed": 2, "_grow": 6, "_drop": 6}
    tuning.score_grid(ITEMS[:1], "watershed", [*grid, *grid], metric=_aji, workers=1)
    assert calls == {"_seed": 4, "_grow": 12, "_drop": 24}, "a function gets every label image"


def test_band_files_are_read(tmp_path: Any) -> None:
    bandfile = pytest.importorskip("histofold.inference.bandfile")
    path = tmp_path / "a.tif"
    bands = ITEMS[0][0]()
    stored = {name: np.rint(band * 255).astype(np.uint8) for name, band in bands.items()}
    described = targets.build("border").bands
    with bandfile.BandFileWriter(path, described, 80, 90, 1.0, 80, 90) as writer:
        writer.write_rows(0, np.stack([stored[band.name] for band in described]))
    grid = instances.grid("watershed")[::60]
    from_file = tuning.score_grid([(path, ITEMS[0][1])], "watershed", grid, workers=1)
    arrays = {name: (band / np.float32(255)).astype(np.float32) for name, band in stored.items()}
    assert np.allclose(from_file, tuning.score_grid([(arrays, ITEMS[0][1]())], "watershed", grid, workers=1))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ConfigError, match="metric=map"):
        tuning.score_grid(ITEMS, "watershed", [{}], metric="map")
    with pytest.raises(ConfigError, match="no such option"):
        tuning.score_grid(ITEMS, "watershed", [{"level": 3}])
    with pytest.raises(DataError, match="same size"):
        tuning.score_grid([(ITEMS[0][0], np.zeros((3, 3), int))], "watershed", [{}], workers=1)
    with pytest.raises(RuntimeError, match="image 0 of 1") as caught:
        tuning.score_grid([(partial(int, "x"), ITEMS[0][1])], "watershed", [{}], workers=1)  # type: ignore[list-item]
    assert isinstance(caught.value.__cause__, ValueError)
