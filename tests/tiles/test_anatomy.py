"""Outlines of cortex and medulla as drawing tools leave them: what is none is passed over, what is no GeoJSON told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from histofold.errors import DataError
from histofold.tiles.anatomy import CELL, Anatomy

SIDE = 4 * CELL


def feature(kind: str, coordinates: Any, name: str = "Cortex") -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}


WHOLE = feature("Polygon", [[[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE], [0, 0]]])


def drawn(path: Path, content: Any) -> float:
    """Weight of a slide with this file."""
    path.write_text(json.dumps(content))
    return Anatomy(path, SIDE, SIDE).weight(0, 0, SIDE, SIDE)


@pytest.mark.parametrize(
    "other",
    [
        feature("Point", [1, 2]),
        feature("LineString", [[1, 2], [3, 4]], "Medulla"),
        {**WHOLE, "properties": {}},
        {**WHOLE, "properties": None},
        {**WHOLE, "properties": {"classification": {"color": [0, 0, 0]}}},
        {"geometry": WHOLE["geometry"]},
    ],
)
def test_what_has_no_area_or_no_name_is_passed_over(tmp_path: Path, other: dict[str, Any]) -> None:
    assert drawn(tmp_path / "x.json", [other]) == 0.5
    assert drawn(tmp_path / "x.json", [other, WHOLE]) == 1.0


def test_one_feature_is_a_list_of_one(tmp_path: Path) -> None:
    assert drawn(tmp_path / "x.json", WHOLE) == 1.0
    assert drawn(tmp_path / "x.json", {"type": "FeatureCollection", "features": [WHOLE]}) == 1.0


@pytest.mark.parametrize("content", [WHOLE["geometry"], {}, {"features": None}, [3], [{}], 3])
def test_other_files_are_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"x\.json: not polygons of anatomical structures.*or remove it"):
        drawn(tmp_path / "x.json", content)


def test_what_lacks_features_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"an object without features \(its type is 'Polygon'\); expected GeoJSON: a"):
        drawn(tmp_path / "x.json", WHOLE["geometry"])
