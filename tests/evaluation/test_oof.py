"""Which bands members share: those of one name and one range, read in one unit; and scores of older runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histofold.errors import DataError
from histofold.evaluation.oof import MeanBands, Run, left_out, scored_by, shared_bands
from histofold.inference.bandfile import BandFileWriter, quantise
from histofold.report.data import read_scores
from histofold.targets.base import Band

FOREGROUND, DISTANCE, IN_PIXELS = Band("foreground"), Band("distance"), Band("distance", 0.0, 255.0)


def written(path: Path, *bands: Band, share: float = 0.5) -> Path:
    """A band file whose values all lie at `share` of their ranges."""
    codes = [quantise(np.full((8, 8), band.low + share * (band.high - band.low), np.float32), band) for band in bands]
    with BandFileWriter(path, bands, 8, 8) as writer:
        writer.write_rows(0, np.stack(codes))
    return path


def test_a_band_is_shared_where_its_range_is_the_same(tmp_path: Path) -> None:
    one = written(tmp_path / "a.tif", FOREGROUND, DISTANCE)
    other = written(tmp_path / "b.tif", FOREGROUND, IN_PIXELS, share=1)
    assert shared_bands([one, other]) == ("foreground",)
    (line,) = left_out([one, other])
    assert "band distance left out" in line
    assert "0..1 and 0..255" in line
    again = written(tmp_path / "c.tif", FOREGROUND, DISTANCE, Band("border"))
    assert shared_bands([one, again]) == ("foreground", "distance")
    assert left_out([one, again]) == ()
    with pytest.raises(DataError, match="nothing in common"):
        shared_bands([written(tmp_path / "d.tif", DISTANCE), written(tmp_path / "e.tif", IN_PIXELS)])


def test_a_mean_of_distances_is_in_the_units_of_decoders(tmp_path: Path) -> None:
    paths = tuple(written(tmp_path / f"{share}.tif", FOREGROUND, IN_PIXELS, share=share) for share in (0.2, 0.6))
    mean = MeanBands(paths, (1.0, 1.0), shared_bands(paths))()
    assert mean["distance"] == pytest.approx(np.full((8, 8), 0.4), abs=0.005)
    assert mean["foreground"] == pytest.approx(np.full((8, 8), 0.4), abs=0.005)


def test_runs_from_before_f2_was_counted_are_scored_by_it() -> None:
    counts = pd.DataFrame({"score": [0.9] * 4, "found": [3, 0, 0, 2], "missed": [1, 0, 2, 0], "false": [2, 0, 0, 0]})
    assert scored_by(counts, "f2_50")["score"].tolist() == [pytest.approx(15 / 21), 1.0, 0.0, 1.0]
    half = pd.concat([counts, counts.assign(f2_50=[15 / 21, 1, 0, 1])])
    assert scored_by(half, "f2_50")["score"].isna().sum() == 0, "folds scored before and after"
    assert scored_by(counts.drop(columns="found"), "f2_50")["score"].isna().all(), "another metric's score is none"
    assert scored_by(counts, None)["score"].tolist() == [0.9] * 4


def test_names_that_look_like_nothing_are_names(tmp_path: Path) -> None:
    rows = ["sample_id,stratum,group,fold,score,hd95", "NA,null,None,0,0.5,", "007,,01,0,,3"]
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0" / "scores.csv").write_text("\n".join(rows))
    run = Run("run", tmp_path, (0,), ())
    for table in (run.scores(), read_scores(tmp_path / "fold0" / "scores.csv")):
        assert table["sample_id"].tolist() == ["NA", "007"]
        assert table["stratum"].tolist() == ["null", ""]
        assert table["group"].tolist() == ["None", "01"]
        assert table["score"].isna().tolist() == [False, True]
        assert table["hd95"].sum() == 3
