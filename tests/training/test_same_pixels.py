"""A network is asked about the pixels that it learned from: preprocessing in training and in prediction is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from histofold.cli import main
from histofold.compose import compose, load
from histofold.inference.member import Member
from histofold.inference.predict import predict_sample
from histofold.inference.settings import Settings
from histofold.inference.sources import ArraySource
from histofold.preprocess import Preprocess
from histofold.tiles.augment import draw_crop
from histofold.tiles.dataset import CropDataset
from histofold.training import run
from histofold.training.loop import Parts
from histofold.workspace import Workspace

CROP = 64
ENHANCED = [
    "competition=folders", "model=unet", "model.width=2", f"train.crop={CROP}", "train.batch=2", "train.epochs=1",
    "train.samples_per_epoch=4", "train.workers=0", "train.accelerator=cpu", "train.precision=32-true",
    "train.loggers=[]", "train.validate_every=0", "predict.tta=none", "predict.device=cpu", "evaluate.workers=1",
    "prepare.workers=1", "prepare.n_folds=2", "augment=none", "augment.stretch=2", "augment.clahe=2",
    "augment.normalise=reinhard", "augment.reference='1'",
]  # fmt: skip
"""All that preprocessing can do, and no augmentation, which would hide whether it was done."""


class Recorder(nn.Module):
    """A network that remembers what it was given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.given: list[torch.Tensor] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.given.append(batch.clone())
        return batch.new_zeros(len(batch), self.channels, *batch.shape[-2:])


def test_preprocessing_at_test_time_that_differs_from_training(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eighth bug of winning code: the same window of an image must reach the network alike both times."""
    places = [f"paths.input={discs}", *(f"paths.{name}={tmp_path / name}" for name in ("prepared", "oof"))]
    built: list[tuple[Parts, CropDataset]] = []
    real = run.fit

    def watched(fabric: object, parts: Parts, dataset: CropDataset, *more: object) -> object:
        built.append((parts, dataset))
        return real(fabric, parts, dataset, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "fit", watched)
    for verb in ("prepare", "train"):
        assert main(verb, [*ENHANCED, *places]) == 0
    ((parts, data),) = built
    workspace = Workspace(load(compose([*ENHANCED, *places])))
    member = Member.load(tmp_path / "oof" / "custom" / "unet" / "fold0" / "model.ckpt")
    assert member.preprocess.stretch == member.preprocess.clahe == 2
    assert member.preprocess.stain_method == "reinhard"

    row = int(data._rows_of(0)[0])
    image = workspace.competition.image(str(data.rows.iloc[row]["sample_id"]))
    height, width = image.shape[:2]
    matrix = draw_crop(data.options, np.random.default_rng([data.seed, 0, 0]), height, width, CROP)
    x, y = (int(offset) for offset in matrix[:, 2])
    assert np.array_equal(matrix, [[1, 0, x], [0, 1, y]]), "no augmentation: the crop is a window of the image"
    learned = parts.preprocess.normalise(data[(0, 0)]["image"][None])

    recorder = Recorder(member.target.channels)
    member.network = recorder
    settings = Settings(tile=96, device="cpu", precision="32-true")
    predict_sample(ArraySource(image), [member], None, settings, tmp_path / "bands.tif")
    (asked,) = recorder.given
    # An image that is smaller than a tile lies in its middle, and mirrored tissue around it.
    top, left = (asked.shape[2] - height) // 2, (asked.shape[3] - width) // 2
    assert torch.equal(learned, asked[:, :, top + y : top + y + CROP, left + x : left + x + CROP])
    # And it says something: without the enhancement the window looks otherwise.
    window = torch.from_numpy(image[y : y + CROP, x : x + CROP].transpose(2, 0, 1)[None].copy())
    assert (learned - Preprocess().normalise(window)).abs().max() > 0.1
