"""One drawn slide of kidney cortex or medulla as two stain maps and the outlines of its glomeruli.

`pas` is the magenta of periodic acid-Schiff (basement membranes, mesangium, brush borders, casts), `haem` the blue of
haematoxylin (nuclei). What makes a threshold fail is drawn on purpose: arteries, casts and wide tubules as magenta as a
glomerulus, and lymphocyte clusters as dark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold.sample import texture
from histofold.sample.texture import Bools, Floats, Points

SPACING = 62
"""Pixels from one tubule's centre to the next."""


@dataclass
class Tissue:
    """Stain maps of one slide.

    Attributes:
        pas, haem: optical densities (height, width), 0 where there is glass.
        glomeruli: outline of each glomerulus (n, 2) x, y, Bowman's capsule included.
        taken: discs (x, y, radius) that are occupied.
    """

    pas: Floats
    haem: Floats
    inside: Bools
    glomeruli: list[Points] = field(default_factory=list)
    taken: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pas.shape[0], self.pas.shape[1]


Structure = Callable[[np.random.Generator, Tissue, int, int, int], None]
"""Draws something around x, y with a radius into the maps of a tissue."""


def draw(rng: np.random.Generator, height: int, width: int, glomeruli: int) -> Tissue:
    """Draw tissue with that many glomeruli (fewer if there is no room); 0 gives medulla, which has none."""
    inside = _piece(rng, height, width)
    pas, haem = _tubules(rng, height, width, medulla=glomeruli == 0)
    tissue = Tissue(pas, haem, inside)
    for _ in range(glomeruli):
        _place(rng, tissue, int(rng.integers(82, 128)), _glomerulus)
    for _ in range(int(rng.integers(3, 6))):
        _place(rng, tissue, int(rng.integers(60, 120)), _artery)
    for _ in range(int(rng.integers(4, 9))):
        _place(rng, tissue, int(rng.integers(38, 88)), _cast)
    for _ in range(int(rng.integers(4, 8))):
        _place(rng, tissue, int(rng.integers(80, 150)), _lymphocytes)
    shade = 1 + 0.12 * texture.clouds(rng, height, width, 500)
    edge = texture.soft(inside.astype(np.float32), 1.5)
    tissue.pas = texture.soft(tissue.pas, 0.8) * shade * edge
    tissue.haem = texture.soft(tissue.haem, 0.8) * shade * edge
    return tissue


def _piece(rng: np.random.Generator, height: int, width: int) -> Bools:
    """The cut piece: a wobbly shape that fills most of the slide, with a frayed rim."""
    centre = (width * rng.uniform(0.46, 0.54), height * rng.uniform(0.46, 0.54))
    points = texture.outline(rng, centre, (width * 0.5, height * 0.47), 0.12, waves=6, count=200)
    distance = texture.filled((height, width), points).astype(np.float32)
    rim = texture.soft(distance, 12) + 0.2 * texture.clouds(rng, height, width, 30, octaves=2)
    return np.asarray(rim > 0.5)


def _tubules(rng: np.random.Generator, height: int, width: int, medulla: bool) -> tuple[Floats, Floats]:
    """Tubules side by side: cells of a jittered grid, some joined to long ones, each with wall, cells and lumen."""
    points = texture.scattered(rng, height, width, SPACING)
    columns = max(int(width / SPACING), 1)
    tubule = np.arange(len(points))
    joined = rng.random(len(points)) < (0.75 if medulla else 0.3)
    step = columns if medulla else 1  # medullary rays run one way
    for index in np.flatnonzero(joined[: len(points) - step]):
        tubule[index + step] = tubule[index]
    labels = tubule[_warped(rng, texture.cells((height, width), points), 15.0)].astype(np.int32)
    # Blurred, the distance rounds the corners that straight cell borders have and tissue has not.
    distance = texture.soft(texture.inner_distance(labels), 3.5) + 1.2 * texture.clouds(rng, height, width, 9) - 0.8
    kinds = rng.random(len(points)).astype(np.float32)
    gap = (2.0 + 3.0 * rng.random(len(points)).astype(np.float32))[labels]
    thick = np.where(kinds < 0.55, 17 + 9 * kinds, 8 + 6 * kinds).astype(np.float32)[labels]
    depth = distance - gap
    wall, cells, lumen = np.abs(depth) < 1.6, (depth > 0) & (depth < thick), depth >= thick
    body = (0.34 + 0.22 * (kinds < 0.55) + 0.12 * rng.uniform(-1, 1, len(points))).astype(np.float32)[labels]
    fine = texture.clouds(rng, height, width, 4)
    pas = np.full((height, width), 0.30, np.float32) + 0.08 * texture.clouds(rng, height, width, 14, octaves=2)
    pas[cells] = (body + 0.09 * fine)[cells]
    brush = lumen & (depth < thick + 3) & (kinds < 0.55)[labels]
    pas[lumen] = (0.07 + 0.05 * np.abs(fine))[lumen]
    pas[brush] = 0.62
    pas[wall] = 0.92
    haem = np.full((height, width), 0.07, np.float32)
    haem[lumen] = 0.02
    _nuclei(rng, haem, cells & (depth > 4) & (depth < thick - 2), 19, 4, 0.85)
    _nuclei(rng, haem, depth < 0.5, 17, 3, 0.9, squeeze=0.6)
    return pas, haem


def _warped(rng: np.random.Generator, labels: NDArray[np.int32], reach: float) -> NDArray[np.int32]:
    height, width = labels.shape
    dx, dy = (reach * texture.clouds(rng, height, width, 45) for _ in range(2))
    x = np.clip(np.arange(width)[None] + dx, 0, width - 1).astype(np.int32)
    y = np.clip(np.arange(height)[:, None] + dy, 0, height - 1).astype(np.int32)
    return np.asarray(labels[y, x])


def _nuclei(
    rng: np.random.Generator,
    haem: Floats,
    where: Bools,
    spacing: float,
    radius: int,
    strength: float,
    squeeze: float = 1.0,
) -> None:
    """Stamp nuclei into `haem` where a jittered grid of points falls on `where`; each a little paler or darker."""
    points = texture.scattered(rng, haem.shape[0], haem.shape[1], spacing, 0.5)
    points = points[where[points[:, 1], points[:, 0]]]
    for share in range(3):
        dots = texture.stamp((haem.shape[0], haem.shape[1]), points[share::3], radius - (share == 2), squeeze)
        haem[dots] = strength * (1 - 0.14 * share)


def _place(rng: np.random.Generator, tissue: Tissue, radius: int, structure: Structure) -> None:
    """Put a structure where it is inside the piece and touches no other; give up after 60 attempts."""
    height, width = tissue.shape
    margin = radius + 24
    for _ in range(60):
        x, y = int(rng.integers(margin, width - margin)), int(rng.integers(margin, height - margin))
        box = tissue.inside[y - margin : y + margin : 8, x - margin : x + margin : 8]
        free = all((x - a) ** 2 + (y - b) ** 2 > (radius + r + 22) ** 2 for a, b, r in tissue.taken)
        if free and box.all():
            tissue.taken.append((x, y, radius))
            structure(rng, tissue, x, y, radius)
            return


def _box(tissue: Tissue, x: int, y: int, reach: int) -> tuple[Floats, Floats]:
    window = (slice(y - reach, y + reach), slice(x - reach, x + reach))
    return tissue.pas[window], tissue.haem[window]


def _glomerulus(rng: np.random.Generator, tissue: Tissue, x: int, y: int, radius: int) -> None:
    """Capsule, Bowman's space, and a lobed tuft of capillary loops; one in eight is sclerosed, a solid scar."""
    reach = radius + 20
    pas, haem = _box(tissue, x, y, reach)
    shape = (2 * reach, 2 * reach)
    capsule = texture.outline(rng, (reach, reach), (radius, radius * rng.uniform(0.84, 1.0)), 0.07)
    inside = texture.filled(shape, capsule)
    shift = rng.uniform(-0.06, 0.06, 2) * radius
    scale = rng.uniform(0.80, 0.98)
    lobed = (reach + shift[0], reach + shift[1]), (radius * scale, radius * scale * 0.92)
    tuft = inside & texture.filled(shape, texture.outline(rng, *lobed, 0.16, 7))
    depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)
    pas[inside], haem[inside] = 0.05, 0.03  # Bowman's space
    if rng.random() < 0.125:
        pas[tuft] = (0.72 + 0.1 * texture.clouds(rng, *shape, 10, 2))[tuft]
        _nuclei(rng, haem, tuft, 26, 3, 0.7)
    else:
        _tuft(rng, pas, haem, tuft)
    ring = inside & (depth < rng.uniform(3.0, 5.0))
    pas[ring], haem[ring] = 0.95, 0.15
    tissue.glomeruli.append(capsule + np.array([x - reach, y - reach], np.int32))


def _tuft(rng: np.random.Generator, pas: Floats, haem: Floats, tuft: Bools) -> None:
    shape = (pas.shape[0], pas.shape[1])
    spacing = rng.uniform(15, 22)
    loops = _warped(rng, texture.cells(shape, texture.scattered(rng, *shape, spacing, jitter=0.5)), 7.0)
    distance = texture.inner_distance(loops)
    mesangium = texture.clouds(rng, *shape, 30, 2) > rng.uniform(0.0, 0.5)
    values = np.where(distance < 2.2, 0.85, np.where(distance < 4.0, 0.36, 0.09)).astype(np.float32)
    values[mesangium] = np.maximum(values, 0.55)[mesangium]
    pas[tuft] = values[tuft]
    haem[tuft] = (0.05 + 0.1 * mesangium)[tuft]
    _nuclei(rng, haem, tuft & (distance < 5), rng.uniform(13, 17), 4, 0.92)


def _artery(rng: np.random.Generator, tissue: Tissue, x: int, y: int, radius: int) -> None:
    """A muscular wall in rings around an open lumen, as large and as magenta as a glomerulus."""
    reach = radius + 20
    pas, haem = _box(tissue, x, y, reach)
    shape = (2 * reach, 2 * reach)
    inside = texture.filled(
        shape, texture.outline(rng, (reach, reach), (radius, radius * rng.uniform(0.7, 1.0)), 0.06)
    )
    depth = np.asarray(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5), dtype=np.float32)
    depth += 2.5 * texture.clouds(rng, *shape, 18, 2)
    wall = radius * rng.uniform(0.35, 0.6)
    rings = 0.56 + 0.2 * np.sin(depth * rng.uniform(0.7, 0.95))
    pas[inside], haem[inside] = rings[inside], 0.14
    _nuclei(rng, haem, inside & (depth < wall), 15, 4, 0.8, squeeze=0.45)
    lumen = inside & (depth > wall)
    pas[lumen], haem[lumen] = 0.04, 0.02
    pas[inside & (np.abs(depth - wall) < 2.5)] = 0.95


def _cast(rng: np.random.Generator, tissue: Tissue, x: int, y: int, radius: int) -> None:
    """A dilated tubule filled with protein: a smooth magenta disc in a thin wall of flat cells."""
    reach = radius + 20
    pas, haem = _box(tissue, x, y, reach)
    shape = (2 * reach, 2 * reach)
    inside = texture.filled(shape, texture.outline(rng, (reach, reach), (radius, radius * rng.uniform(0.6, 1.0)), 0.1))
    depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)
    level = rng.choice([0.10, 0.45, 0.75, 0.95])
    pas[inside] = np.float32(level) + 0.05 * texture.clouds(rng, *shape, 30, 2)[inside]
    haem[inside] = 0.05
    pas[inside & (depth < 9)], haem[inside & (depth < 9)] = 0.4, 0.1
    _nuclei(rng, haem, inside & (depth > 3) & (depth < 8), 14, 3, 0.85, squeeze=0.7)
    pas[inside & (depth < 2.5)] = 0.9


def _lymphocytes(rng: np.random.Generator, tissue: Tissue, x: int, y: int, radius: int) -> None:
    """An inflamed patch: small round nuclei shoulder to shoulder, as dark as a tuft, with a ragged rim."""
    reach = radius + 20
    pas, haem = _box(tissue, x, y, reach)
    shape = (2 * reach, 2 * reach)
    core = texture.filled(shape, texture.outline(rng, (reach, reach), (radius * 0.85, radius * 0.6), 0.3, 7))
    ragged = texture.soft(core.astype(np.float32), 9) + 0.35 * texture.clouds(rng, *shape, 16, 2) > 0.5
    pas[ragged] = (0.36 + 0.1 * texture.clouds(rng, *shape, 12, 2))[ragged]
    haem[ragged] = 0.16
    _nuclei(rng, haem, ragged, 10, 4, 0.98)
