"""The schema of the configuration: names and types only; every default lives in configs/ with a comment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FREE = {
    "prepare": ("workers", "force"),
    "train": (
        "workers",
        "validate_every",
        "checkpoint_minutes",
        "accelerator",
        "devices",
        "loggers",
        "compile",
    ),
}
"""Settings that may change between the sittings of one run: they do not change what is learned."""


@dataclass
class Paths:
    """Where data, runs and results live; relative paths count from the repository's root."""

    input: str
    prepared: str
    oof: str
    submissions: str


@dataclass
class CompetitionConfig:
    """One competition: its name, the adapter that reads it, and adapter options."""

    name: str
    adapter: str
    slug: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    code: bool = False  # Kaggle takes a notebook, and no CSV


@dataclass
class PrepareConfig:
    """How raw files become the store."""

    kind: str  # whole | tiles
    tile: int  # pixels at `scale`
    scale: float  # reduction ≥ 1
    grids: list[str]  # grid | shifted | centred
    min_tissue: float  # share of a tile that must be tissue
    n_folds: int
    fold_seed: int
    workers: int  # 0: one for each core
    force: bool


@dataclass
class TrainConfig:
    """The training loop."""

    epochs: int
    samples_per_epoch: int  # crops or tiles drawn in an epoch
    batch: int
    crop: int  # pixels, square
    accumulate: int
    clip: float  # gradient norm; 0 = off
    ema: float  # decay; 0 = off
    precision: str  # auto | 32-true | 16-mixed | bf16-mixed
    accelerator: str  # auto | cpu | gpu
    devices: int
    workers: int  # loader processes
    validate_every: int  # epochs; 0 = only at the end
    checkpoint_minutes: float
    balance: int  # bins of foreground share to draw evenly from; 0 = off
    even_strata: float  # 0: image types are drawn as often as they are; 1: all equally often; between: share^(1 - it)
    compile: bool
    start: str | None  # a run of this competition, or a model.ckpt
    loggers: list[str]  # tensorboard | wandb | mlflow

    def start_is_file(self) -> bool:
        """Whether `start` is a path and not the name of a run."""
        return self.start is not None and (self.start.endswith(".ckpt") or "/" in self.start)


@dataclass
class PredictConfig:
    """Streaming inference."""

    tile: int  # 0: the size the network was trained at
    step: float  # share of a tile
    margin: int  # pixels cut from every inner side of a tile
    window: str  # hann | triangle | flat
    tta: str  # none | flips | dihedral
    batch: int
    device: str  # auto | cpu | cuda | cuda:N
    precision: str
    skip_background: bool
    spread: bool  # a band more: how far views and members disagree
    size: float  # pixels that instances are magnified to; 0: images as they are


@dataclass
class EvaluateConfig:
    """Scores, thresholds and ensembles from OOF predictions."""

    bootstrap: int
    workers: int
    search: str  # equal | greedy | optimise | best
    tune: bool
    per_stratum: str  # auto | always | never
    second_level: str  # off | auto | on
    depths: float | None  # loss of score; prunes UNet++ runs


@dataclass
class SubmitConfig:
    """The submission file and what happens with it."""

    send: bool
    message: str | None  # null: the name and the CV
    min_area: int
    max_hole: int


@dataclass
class KernelConfig:
    """The offline notebook for code competitions."""

    push: bool
    owner: str | None  # null: from Kaggle's credentials
    title: str | None  # null: competition and name
    message: str | None  # null: the name
    hours: float
    device: str  # auto | cpu | cuda | cuda:N
    gpu: bool
    wheels: Any  # auto, or a list of requirements and .whl files
    python: list[str]  # versions that wheels are fetched for
    limit: str


@dataclass
class LimitsConfig:
    """What a step may use: `auto` is found from the machine and its container; `kaggle` is a preset."""

    memory: str
    disk: str
    hours: float


@dataclass
class Config:
    """Everything that a verb reads."""

    competition: CompetitionConfig
    model: dict[str, Any]  # name and the class's own options
    target: dict[str, Any]
    loss: dict[str, float]
    augment: dict[str, Any]
    optimizer: dict[str, Any]
    instances: dict[str, Any]
    paths: Paths
    prepare: PrepareConfig
    train: TrainConfig
    predict: PredictConfig
    evaluate: EvaluateConfig
    submit: SubmitConfig
    kernel: KernelConfig
    limits: LimitsConfig
    fold: int
    folds: Any  # prepare, train: the fold set (`default` is folds.csv, NAME folds-NAME.csv); evaluate: all or [0, 1]
    seed: int
    run: str | None  # name of the run; by default the model's
    runs: list[str] | None  # evaluate: members of the ensemble
    name: str | None  # of the ensemble and the submission
    resume: str  # auto | never
    images: str | None  # predict: a folder of one's own images
    shard: str | None  # i/n
    file: str | None = None  # validate: a CSV
    root: str = "."

    def path(self, name: str) -> Path:
        """One of `paths` as an absolute path, counted from the repository's root."""
        return Path(self.root, getattr(self.paths, name)).absolute()

    def run_name(self) -> str:
        """Name of the run folder."""
        return self.run or str(self.model["name"])
