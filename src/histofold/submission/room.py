"""How many processes `submit` may use: what encoding the largest samples side by side needs, beside `limits.*`."""

from __future__ import annotations

from collections.abc import Sequence

from histofold import limits, parallel
from histofold.competitions.base import Sample
from histofold.inference import planning
from histofold.limits import Plan
from histofold.submission.place import Submission
from histofold.tiles.planning import WORKER_BYTES

INSTANCE_BYTES, MASK_BYTES, STREAMED_BYTES = 50, 28, 3
"""Memory for a full-size pixel while a sample is encoded and scored: as instances, as a mask that is kept as a label
image, and as the mask of a slide, of which only the outline is held."""
LABELS_WRITTEN, TEXT_WRITTEN = 0.4, 0.01
"""Bytes on disk for a full-size pixel, of label image and GeoJSON, and of the CSV."""
SECONDS = {"instances": 2e-6, "mask": 1e-6, "streamed": 1e-7}
"""Of a core for a full-size pixel."""
ADVICE = {
    "memory": "even for one sample after another; cut the largest images into parts, or set limits.memory",
    "disk": "free some, move paths.submissions, or set limits.disk",
    "time": "use more processes (evaluate.workers), or raise limits.hours",
}


def workers_for(submission: Submission, samples: Sequence[Sample]) -> int:
    """As many processes as `evaluate.workers` asks for, or as there is memory for; says so where these are fewer.

    Raises:
        ConfigError: a limit cannot be read.
        ResourceError: not even one fits; says what is short, and what to change.
    """
    config = submission.workspace.config
    held = planning.resident()
    room = limits.of(config.limits, submission.folder, held)
    asked = max(1, min(config.evaluate.workers or parallel.cores(), len(samples)))
    kind, pixels = kind_of(submission), [sample.height * sample.width for sample in samples]
    return limits.processes(asked, lambda count: plan(kind, pixels, count, held), room)


def kind_of(submission: Submission) -> str:
    """What is held of a sample: `instances`, a `mask`, or nothing but outlines (`streamed`)."""
    if submission.ensemble.instances is not None:
        return "instances"
    return "mask" if submission.workspace.competition.kind == "images" else "streamed"


def plan(kind: str, pixels: Sequence[int], workers: int, held: int) -> Plan:
    """Estimate what encoding samples needs.

    Args:
        kind: as `kind_of` says.
        pixels: of each sample at full size.
        workers: processes; one is this process itself.
        held: bytes that this process has already.
    """
    each = {"instances": INSTANCE_BYTES, "mask": MASK_BYTES, "streamed": STREAMED_BYTES}[kind]
    # The largest ones may well meet: whoever is done takes the next.
    memory = held + each * sum(sorted(pixels)[-workers:]) + (workers * WORKER_BYTES if workers > 1 else 0)
    written = TEXT_WRITTEN if kind == "streamed" else TEXT_WRITTEN + LABELS_WRITTEN
    seconds = SECONDS[kind] * sum(pixels) / workers
    return Plan("submit", memory, int(written * sum(pixels)), seconds, ADVICE)
