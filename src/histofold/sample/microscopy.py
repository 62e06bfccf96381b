"""Drawn microscope images of nuclei in the three manners of DSB 2018, each with its instance labels.

Dark fluorescence with nuclei of very unequal brightness and a glow between them, purple histology with pale nuclei
and dark fibres, bright grey cells whose overlapping bodies are as dark as their nuclei: one threshold fits none.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold.sample import texture
from histofold.sample.texture import Floats, Points

SMALLEST = 24
"""Pixels; what is left of a covered nucleus below that is not labelled."""

Picture = tuple[NDArray[np.uint8], NDArray[np.uint16]]
"""Pixels (H, W, 3) and labels (H, W)."""


@dataclass(frozen=True)
class Nucleus:
    """One outline (n, 2) x, y around a centre x, y with a radius in pixels."""

    x: float
    y: float
    radius: float
    points: Points


def fluorescence(rng: np.random.Generator, height: int, width: int, count: int) -> Picture:
    """White nuclei on black; `count` 0 gives an image with background, glow and debris only."""
    nuclei = placed(rng, height, width, count, rng.uniform(8, 15), touching=0.45)
    labels = painted(nuclei, height, width)
    exposure = float(np.exp(rng.uniform(np.log(45), np.log(210))))
    dimmest = rng.uniform(0.12, 0.4)
    glow = 0.10 + 0.10 * texture.clouds(rng, height, width, 160, 2)
    light = np.maximum(glow, 0.03).astype(np.float32)
    shades = np.exp(rng.uniform(np.log(dimmest), 0, len(nuclei) + 1)).astype(np.float32)
    chromatin = 1 + 0.22 * texture.clouds(rng, height, width, 6, 2)
    body = np.where(labels > 0, shades[labels] * chromatin, 0).astype(np.float32)
    halo = texture.soft(body, 9) * 0.35
    light = light + texture.soft(body, 0.9) + halo
    debris = texture.stamp((height, width), texture.scattered(rng, height, width, 110, 0.5), 1)
    light[debris] += rng.uniform(0.2, 0.6)
    grey = exposure * light + texture.grain(rng, height, width, rng.uniform(0.6, 1.6)) + rng.uniform(1, 8)
    return _grey(grey), labels


def histology(rng: np.random.Generator, height: int, width: int, count: int, manner: str) -> Picture:
    """Stained section: manner `purple` (purple on purple), `white` (purple on white) or `pink` (H&E)."""
    nuclei = placed(rng, height, width, count, rng.uniform(10, 17), touching=0.4)
    labels = painted(nuclei, height, width)
    haem, ground = _section(rng, labels, len(nuclei), manner)
    blue = np.array([0.92, 1.15, 0.30], np.float32) + rng.uniform(-0.1, 0.1, 3).astype(np.float32)
    other = {"purple": (0.42, 0.58, 0.14), "white": (0.30, 0.45, 0.22), "pink": (0.12, 0.85, 0.42)}[manner]
    lamp = rng.uniform(225, 246)
    noise = texture.grain(rng, height, width, 1.2)
    channels = [
        lamp * np.exp(-np.maximum(blue[c], 0.05) * haem - np.float32(other[c]) * ground) + noise for c in range(3)
    ]
    return np.clip(np.rint(np.stack(channels, axis=2)), 0, 255).astype(np.uint8), labels


def _section(
    rng: np.random.Generator, labels: NDArray[np.uint16], count: int, manner: str
) -> tuple[Floats, Floats]:
    height, width = labels.shape
    shades = rng.uniform(0.35, 1.25, count + 1).astype(np.float32)
    rim = texture.inner_distance(labels.astype(np.int32))
    chromatin = 1 + 0.35 * texture.clouds(rng, height, width, 5, 2)
    haem = np.where(labels > 0, shades[labels] * chromatin * np.where(rim < 2.0, 1.25, 1.0), 0).astype(np.float32)
    # Fibres: noise stretched along one direction, in places as dark as a nucleus.
    fibres = texture.clouds(rng, height, width, 8) * texture.clouds(rng, height, width, 90) + 0.4 * texture.clouds(
        rng, height, width, 40, 3
    )
    base = {"purple": 0.75, "white": 0.12, "pink": 0.6}[manner]
    ground = np.maximum(base + 0.35 * fibres, 0.02).astype(np.float32)
    smears = np.maximum(texture.clouds(rng, height, width, 38) - rng.uniform(0.45, 0.7), 0) * 2.2
    haem += texture.soft(smears.astype(np.float32), 4) + 0.05
    if manner == "pink":
        cells = texture.clouds(rng, height, width, 70) > 0.55
        ground[cells] += 0.9  # red blood and collagen, more intense than any nucleus
    return texture.soft(haem, 0.9), texture.soft(ground, 1.0)


def bright_grey(rng: np.random.Generator, height: int, width: int, count: int) -> Picture:
    """Unstained cells in bright field: grey bodies that overlap, a small dark nucleus in each."""
    density = np.zeros((height, width), np.float32)
    nuclei: list[Nucleus] = []
    centres = placed(rng, height, width, count, 30.0, touching=0.7)
    for cell in centres:
        body = texture.outline(rng, (cell.x, cell.y), (34 * rng.uniform(0.8, 1.3), 30 * rng.uniform(0.8, 1.2)), 0.25, 7)
        density[texture.filled((height, width), body)] += rng.uniform(0.12, 0.36)
        centre = (cell.x + rng.uniform(-8, 8), cell.y + rng.uniform(-8, 8))
        radius = rng.uniform(6.5, 10.0)
        points = texture.outline(rng, centre, (radius, radius * rng.uniform(0.7, 1.0)), 0.08, count=32)
        nuclei.append(Nucleus(*centre, radius, points))
    labels = painted(nuclei, height, width)
    density *= 1 + 0.35 * texture.clouds(rng, height, width, 12, 2)
    shades = rng.uniform(0.4, 0.8, len(nuclei) + 1).astype(np.float32)
    density += np.where(labels > 0, shades[labels], 0)
    specks = texture.stamp((height, width), texture.scattered(rng, height, width, 75, 0.5), 2)
    density[specks] += rng.uniform(0.3, 0.7)
    lamp = rng.uniform(222, 238) * (1 + 0.02 * texture.clouds(rng, height, width, 300))
    grey = lamp * np.exp(-texture.soft(density, 0.8)) + texture.grain(rng, height, width, 1.0)
    return _grey(grey), labels


def placed(
    rng: np.random.Generator, height: int, width: int, count: int, radius: float, touching: float
) -> list[Nucleus]:
    """Nuclei of about `radius`; a share `touching` of them leans on one that is already there."""
    found: list[Nucleus] = []
    for _ in range(count):
        for _ in range(40):
            size = radius * rng.uniform(0.7, 1.35)
            if found and rng.random() < touching:
                other = found[int(rng.integers(len(found)))]
                angle, reach = rng.uniform(0, 2 * np.pi), 0.93 * (other.radius + size)
                x, y = other.x + reach * np.cos(angle), other.y + reach * np.sin(angle)
            else:
                x, y = rng.uniform(-4, width + 4), rng.uniform(-4, height + 4)
            inside = -4 <= x <= width + 4 and -4 <= y <= height + 4
            if inside and all((x - n.x) ** 2 + (y - n.y) ** 2 > (0.86 * (n.radius + size)) ** 2 for n in found):
                points = texture.outline(rng, (x, y), (size, size * rng.uniform(0.72, 1.0)), 0.1, count=48)
                found.append(Nucleus(x, y, size, points))
                break
    return found


def painted(nuclei: list[Nucleus], height: int, width: int) -> NDArray[np.uint16]:
    """Labels (height, width): 1..n in the order of `nuclei`, later ones on top, remnants under `SMALLEST` dropped."""
    labels = np.zeros((height, width), np.uint16)
    for number, nucleus in enumerate(nuclei, start=1):
        cv2.fillPoly(labels, [nucleus.points], number)
    sizes = np.bincount(labels.ravel(), minlength=len(nuclei) + 1)
    labels[(sizes < SMALLEST)[labels]] = 0
    return labels


def _grey(values: Floats) -> NDArray[np.uint8]:
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
