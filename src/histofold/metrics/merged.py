"""How scores are marked whose truth cannot tell objects apart: labels that are components of a binary mask."""

from __future__ import annotations

BY_PIXEL = ("dice", "iou")
"""Scores that do not ask where one object ends and the next begins."""

MARK = "*"

NOTE = (
    f"{MARK} the labels are components of a binary mask, so touching objects are one object there: instance scores "
    "punish a right separation and are not comparable with those of other sets; compare dice and iou"
)


def marked(metric: str, merged: bool) -> str:
    """The metric's name, with `MARK` where it is an instance score of merged labels."""
    return f"{metric}{MARK}" if merged and metric not in BY_PIXEL else metric
