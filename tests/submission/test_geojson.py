"""Instances as GeoJSON: what is read back is what was written, and it has what QuPath asks for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from histofold.competitions import images
from histofold.errors import DataError
from histofold.submission.geojson import outlines, read_geojson, write_geojson


def rings(path: Path) -> list[list[list[int]]]:
    """All rings of a file."""
    features = json.loads(path.read_text())["features"]
    shapes = [item["geometry"] for item in features]
    parts = [part for g in shapes for part in (g["coordinates"] if g["type"] == "MultiPolygon" else [g["coordinates"]])]
    return [ring for part in parts for ring in part]


@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 5)))
def test_any_labels_survive(tmp_path_factory: pytest.TempPathFactory, labels: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.geojson"
    write_geojson(path, labels)
    assert np.array_equal(read_geojson(path, labels.shape), labels)
    for ring in rings(path):
        assert ring[0] == ring[-1], "a ring is closed"
        corners = [tuple(point) for point in ring[:-1]]
        assert len(set(corners)) == len(corners), "and does not touch itself"


def test_holes_many_labels_and_the_border_survive(tmp_path: Path) -> None:
    labels = np.zeros((90, 120), np.uint32)
    cv2.circle(view := np.zeros((90, 120), np.uint8), (30, 30), 20, 1, -1)
    labels[view > 0] = 70_000
    labels[25:36, 25:36] = 0
    labels[29:31, 29:31] = 3  # another instance in the hole
    labels[80:, 100:] = 1
    path = tmp_path / "a.geojson"
    write_geojson(path, labels)
    assert np.array_equal(read_geojson(path, (90, 120)), labels)
    ring = next(item for item in json.loads(path.read_text())["features"] if item["properties"]["name"] == "70000")
    assert len(ring["geometry"]["coordinates"]) == 2


def test_qupath_finds_type_class_and_ids(tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:5, 2:5], labels[10:14, 3:9] = 1, 2
    for folder in ("one", "two"):
        write_geojson(tmp_path / folder / "a.geojson", labels)
    text = (tmp_path / "one" / "a.geojson").read_text()
    assert text == (tmp_path / "two" / "a.geojson").read_text()
    content = json.loads(text)
    assert content["type"] == "FeatureCollection"
    assert len({uuid.UUID(item["id"]) for item in content["features"]}) == 2
    for item in content["features"]:
        assert item["type"] == "Feature"
        assert item["properties"]["objectType"] == "detection"
        assert item["properties"]["classification"]["name"] == "Instance"
        assert len(item["properties"]["classification"]["color"]) == 3
    assert dict(outlines(labels))[1] == [[[[2, 2], [2, 5], [5, 5], [5, 2], [2, 2]]]]


def test_a_mask_becomes_its_connected_parts_and_nothing_an_empty_list(tmp_path: Path) -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:5, 2:5] = mask[10:14, 3:9] = 1
    write_geojson(tmp_path / "a.geojson", mask, instances=False)
    back = read_geojson(tmp_path / "a.geojson", (20, 20))
    assert back.max() == 2
    assert np.array_equal(back > 0, mask > 0)
    write_geojson(tmp_path / "b.geojson", np.zeros((5, 5), int))
    assert not read_geojson(tmp_path / "b.geojson", (5, 5)).any()


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text('{"type": "Feature"}')
    with pytest.raises(DataError, match="FeatureCollection"):
        read_geojson(tmp_path / "a.geojson", (5, 5))


def test_submit_writes_it_beside_the_labels(draw: Callable[..., Any]) -> None:
    world = draw(2, seed=1)
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    assert world.run("submit") == 0
    for sample_id in ("dark02", "light03"):
        labels = images.integers(world.submission / "labels" / f"{sample_id}.tif")
        assert labels.max() >= 2
        assert np.array_equal(read_geojson(world.submission / "geojson" / f"{sample_id}.geojson", labels.shape), labels)
