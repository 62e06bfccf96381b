"""Instances as GeoJSON (RFC 7946) with the properties that QuPath reads, so that they open as objects over the image.

Outlines run along the edges of the pixels and keep their holes: filled by the rule of the pixel's centre they give back
the very labels. An instance whose parts touch at corners only is a MultiPolygon, because a ring must not touch itself.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError
from histofold.files import atomic, read_json
from histofold.instances.cleanup import Labels, components

COLOURS = {"Instance": [46, 160, 67], "Foreground": [200, 80, 40]}
"""Class of the objects → RGB in QuPath."""


def write_geojson(path: Path, labels: NDArray[Any], instances: bool = True) -> None:
    """Write a label image (H, W), 0 background, as a FeatureCollection of one detection an instance.

    Coordinates are pixels of the full-size image, x to the right and y down, as QuPath has them. Ids are UUIDs that
    depend on the file's name and the label alone.

    Args:
        path: ends in .geojson.
        instances: False: labels say foreground only, and each of its connected parts becomes an object.
    """
    found = labels if instances else components(labels > 0)
    name = "Instance" if instances else "Foreground"
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for number, (label, parts) in enumerate(outlines(found)):
            file.write(",\n" if number else "\n")
            json.dump(_feature(path.stem, label, parts, name), file, separators=(",", ":"))
        file.write("\n]}\n")


def outlines(labels: NDArray[Any]) -> Iterator[tuple[int, list[list[Any]]]]:
    """Yield (label, polygons) in the order of labels; a polygon is a list of rings, the outline and then its holes."""
    # Imported here: a notebook that writes a CSV needs no polygons.
    from rasterio.features import shapes

    parts: dict[int, list[list[Any]]] = {}
    for shape, value in shapes(np.ascontiguousarray(labels, np.int32), mask=labels > 0, connectivity=4):
        rings = [[[int(x), int(y)] for x, y in ring] for ring in shape["coordinates"]]
        parts.setdefault(int(value), []).append(rings)
    yield from sorted(parts.items())


def _feature(sample: str, label: int, parts: list[list[Any]], name: str) -> dict[str, Any]:
    one = len(parts) == 1
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"histofold/{sample}/{label}")),
        "geometry": {"type": "Polygon" if one else "MultiPolygon", "coordinates": parts[0] if one else parts},
        "properties": {
            "objectType": "detection",
            "name": str(label),
            "classification": {"name": name, "color": COLOURS[name]},
        },
    }


def read_geojson(path: Path, shape: tuple[int, int]) -> Labels:
    """Paint the features of a file that `write_geojson` wrote, or QuPath saved, as labels (H, W) int32.

    A feature whose name is a number above 0 keeps it as its label; the others are numbered on.

    Raises:
        DataError: not a FeatureCollection of polygons.
    """
    from rasterio.features import rasterize

    content = read_json(path)
    try:
        features = [(item["geometry"], str(item["properties"].get("name", ""))) for item in content["features"]]
        numbers = [int(name) if name.isdecimal() else 0 for _, name in features]
        fresh = iter(range(max(numbers, default=0) + 1, max(numbers, default=0) + 1 + len(numbers)))
        pairs = [(item, number or next(fresh)) for (item, _), number in zip(features, numbers, strict=True)]
        if not pairs:
            return np.zeros(shape, np.int32)
        return np.asarray(rasterize(pairs, out_shape=shape, fill=0, dtype="int32"), np.int32)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: expected a FeatureCollection of polygons ({error!r})") from error
