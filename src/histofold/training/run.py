"""`train`: one fold from the prepared store to weights, curves, OOF predictions and scores."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.fabric import Fabric
from omegaconf import OmegaConf
from timm.utils import ModelEmaV3
from torch import nn

from histofold import losses, models, targets
from histofold.config import Config
from histofold.errors import ConfigError, DataError
from histofold.files import digest, sha256, write_text
from histofold.identity import difference
from histofold.inference import checkpoint
from histofold.inference.checkpoint import Spec
from histofold.inference.member import Member
from histofold.inference.predict import members_of, origin
from histofold.options import AugmentOptions, OptimizerOptions
from histofold.preprocess import Preprocess
from histofold.tiles.dataset import CropDataset
from histofold.tiles.folds import in_cv
from histofold.training.device import fabric_for, memory_format, scaled
from histofold.training.finishing import finish
from histofold.training.lock import alone
from histofold.training.loop import Parts, enough_values, fit, steps_per_epoch
from histofold.training.oof import settings_of, validate
from histofold.training.optim import build_optimizer, build_schedule
from histofold.training.planning import require_room
from histofold.training.preprocessing import check_mixing, preprocess_of
from histofold.training.ranks import on_first
from histofold.training.records import Records
from histofold.training.start import Start, leaked, samples_seen
from histofold.workspace import Workspace

PREDICTED = ("tile", "step", "margin", "window", "tta", "size", "spread")
"""Settings that out-of-fold predictions depend on."""


def train(config: Config) -> None:
    """Train fold `config.fold`, or go on with it, and write its OOF predictions and scores.

    Raises:
        ConfigError: a setting is out of range, or the run folder belongs to another configuration.
        DataError: nothing was prepared, files are broken, or `train.start` has seen what is held out.
    """
    workspace = Workspace(config)
    fold = check_fold(workspace)
    folder = workspace.oof / config.run_name() / f"fold{config.fold}"
    held_out = fold[fold["fold"] == config.fold]
    if (folder / "scores.csv").exists() and config.resume == "auto":
        check_same(config, folder)
        lacking = undone(folder, held_out)
        if not lacking:
            print(f"{folder}: this fold is done already{_kept(config, folder)}; choose another run= to train again")
            return
        print(f"{folder}: {lacking}")
    start = Start.of(config, workspace, folder)
    fabric = fabric_for(config.train)
    on_first(fabric, lambda: check_free(config, folder))
    with alone(fabric, folder):
        trained = (folder / "model.ckpt").exists()
        fabric.seed_everything(config.seed, verbose=False)
        member = fit_fold(config, workspace, fabric, fold, folder, start)
        check_held_out(folder / "model.ckpt", member, workspace.folds(), config.fold)
        # Scores say that a fold is done: those of lost predictions must not outlive a kill while others are made.
        on_first(fabric, lambda: (folder / "scores.csv").unlink(missing_ok=True))
        finish(workspace, fabric, member, held_out, folder, planned=not trained)


def check_fold(workspace: Workspace) -> pd.DataFrame:
    """The rows of folds.csv that take part in the cross-validation.

    Raises:
        ConfigError: there is no such fold.
    """
    table = in_cv(workspace.folds())
    known = sorted(int(number) for number in table["fold"].unique())
    if workspace.config.fold not in known:
        raise ConfigError(
            f"fold={workspace.config.fold}: {workspace.folds_path().name} has the folds "
            f"{', '.join(map(str, known))}; choose one of them"
        )
    return table


def undone(folder: Path, held_out: pd.DataFrame) -> str:
    """What a fold with scores lacks all the same, and what is done about it; empty where it lacks nothing."""
    if not (folder / "model.ckpt").exists():
        return "model.ckpt is missing; makes it anew"
    lost, of = unpredicted(folder, held_out), f"of {len(held_out)} OOF predictions are"
    if lost:
        return f"{len(lost)} {of} missing ({lost[0]}); makes them anew"
    other = of_other_weights(folder, held_out)
    return f"{len(other)} {of} broken, or not of these weights ({other[0]}); makes them anew" if other else ""


def of_other_weights(folder: Path, held_out: pd.DataFrame) -> list[str]:
    """Ids of held-out samples whose band file is broken or not of the fold's `model.ckpt`, sorted.

    Files from before they said what they were made from pass.
    """
    made = OmegaConf.load(folder / "config.yaml").predict
    known = members_of(sha256(folder / "model.ckpt"), made.get("size", 0.0))

    def fits(sample_id: str) -> bool:
        try:
            found = origin(folder / "predictions" / f"{sample_id}.tif")
        except DataError:
            return False
        return found is None or found.members in known

    return sorted(sample_id for sample_id in held_out["sample_id"].astype(str) if not fits(sample_id))


def unpredicted(folder: Path, held_out: pd.DataFrame) -> list[str]:
    """Ids of held-out samples without a band file in a fold's folder, sorted."""
    there = {path.stem for path in (folder / "predictions").glob("*.tif")}
    return sorted(set(held_out["sample_id"].astype(str)) - there)


@contextmanager
def claimed(config: Config, folder: Path, fabric: Fabric) -> Iterator[None]:
    """Make the fold's folder this configuration's while it is worked in.

    One in which nothing was learned is given up again: what fails in its first step, or is interrupted before its first
    checkpoint, would otherwise refuse the corrected command.

    Raises:
        ConfigError: it, or another fold of the run, was trained with another configuration.
    """
    path = folder / "config.yaml"
    new = not path.exists()
    on_first(fabric, lambda: claim(config, folder))
    try:
        yield
    except BaseException:
        if new and fabric.is_global_zero and not has_weights(folder):
            path.unlink(missing_ok=True)
        raise


def has_weights(folder: Path) -> bool:
    """Whether anything was learned in a fold's folder."""
    return (folder / "last.ckpt").exists() or (folder / "model.ckpt").exists()


def claim(config: Config, folder: Path) -> None:
    """Make the fold's folder this configuration's, as far as it is free.

    The rest of a configuration may change: the file says how the predictions are made that are still to be made.

    Raises:
        ConfigError: it, or another fold of the run, was trained with another configuration.
    """
    check_free(config, folder)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))


def check_free(config: Config, folder: Path) -> None:
    """Check that the fold's folder is this configuration's, or nobody's.

    Raises:
        ConfigError: it, or another fold of the run, was trained with another configuration.
    """
    path = folder / "config.yaml"
    if not path.exists():
        if has_weights(folder):
            raise DataError(f"{folder}: weights without config.yaml; move the folder away or choose another run=")
        check_siblings(config, folder)
        return
    if config.resume == "never":
        raise ConfigError(f"{folder}: exists already and resume=never; choose another run= or delete the folder")
    try:
        check_same(config, folder)
    except ConfigError as error:
        # As after a kill in the first minutes; another process may be at work there all the same.
        more = "" if has_weights(folder) else ", or delete the folder: it holds no weights yet"
        raise ConfigError(f"{error}{more}") from error


def check_same(config: Config, folder: Path) -> None:
    """Check that the fold in a folder was trained as this configuration says.

    Raises:
        ConfigError: it holds a run of another configuration.
        DataError: it does not say how it was trained.
    """
    path = folder / "config.yaml"
    if not path.exists():
        raise DataError(f"{folder}: scores without config.yaml; move the folder away or choose another run=")
    found = _difference(config, path)
    if found:
        key, theirs, mine = found
        raise ConfigError(
            f"{folder}: was trained with {key}={theirs}, now it is {mine}; "
            "give run=NAME for a new run, or the old setting to go on"
        )


def check_siblings(config: Config, folder: Path) -> None:
    """Check that a new fold belongs to the folds that its run has already: one CV is of one network.

    Raises:
        ConfigError: another fold was trained with another configuration.
    """
    for path in sorted(folder.parent.glob("fold*/config.yaml")):
        found = _difference(config, path)
        if found:
            key, theirs, mine = found
            raise ConfigError(
                f"{path.parent}: was trained with {key}={theirs}, {folder.name} would be with {mine}, but the folds of "
                f"a run are one network's; give run=NAME for a new run, or {key}={theirs} to train this fold of "
                f"{folder.parent.name}"
            )


def _difference(config: Config, path: Path) -> tuple[str, Any, Any] | None:
    """The first setting in which a saved configuration is another run than this one: key, its value, the new one."""
    mine = OmegaConf.to_container(OmegaConf.structured(config))
    return difference(OmegaConf.to_container(OmegaConf.load(path)), mine)


def _kept(config: Config, folder: Path) -> str:
    """Settings of its predictions that the command has otherwise: they stay, and ensembles ask the file for them."""
    made: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml").predict)  # type: ignore[assignment]
    asked = asdict(config.predict)
    other = [f"predict.{key}={made[key]}" for key in PREDICTED if key in made and made[key] != asked[key]]
    return f", its predictions with {', '.join(other)}" if other else ""


def check_held_out(path: Path, member: Member, table: pd.DataFrame, fold: int) -> None:
    """Make sure that finished weights did not see what they are about to be scored on.

    Raises:
        DataError: folds.csv was changed after training.
    """
    seen = member.spec.training.get("samples", []) if member.spec else []
    wrong = leaked(table, fold, seen)
    if not wrong.empty:
        raise DataError(
            f"{path}: has seen {len(wrong)} of the samples that fold {fold} holds out ({wrong['sample_id'].iloc[0]}, "
            "…): the folds were changed after training; restore folds.csv, or train a new run="
        )


def fit_fold(
    config: Config, workspace: Workspace, fabric: Fabric, table: pd.DataFrame, folder: Path, start: Start | None
) -> Member:
    """Train the network on every fold but one and write `model.ckpt`; gives the EMA network as a member.

    Raises:
        ResourceError: memory, disk or time would not suffice for what is left to do.
    """
    done, last = folder / "model.ckpt", folder / "last.ckpt"
    if done.exists():
        on_first(fabric, lambda: claim(config, folder))
        return Member.load(done, fabric.device)
    spec = spec_of(config, workspace, samples_seen(table, config.fold, start))
    # What can be found wrong is found before the folder is claimed, and not when the predictions are made.
    parts, dataset = build(config, workspace, fabric, spec, table, start)
    settings_of(config).tile_for([member_of(parts.ema.module, spec)])
    records = Records(folder, config.train.loggers, f"{config.run_name()} fold {config.fold}")
    held_out = table[table["fold"] == config.fold]
    member = partial(member_of, spec=spec)
    room = partial(require_room, config, workspace, fabric, parts, dataset, folder, held_out, member)
    on_first(fabric, enough_values(config.train)(room))

    def check(network: nn.Module) -> float:
        with shared_folder(fabric) as place:
            return validate(workspace, member_of(network, spec), held_out, fabric, place)

    seen, foreign = digest(spec.training["samples"]), start.seen if start else []
    with claimed(config, folder, fabric), records:
        fit(fabric, parts, dataset, config.train, config.seed, last, seen, foreign, check, records.write)
        if fabric.is_global_zero:
            checkpoint.save(done, spec, parts.ema.module.state_dict())
    fabric.barrier()
    return Member.load(done, fabric.device)


@contextmanager
def shared_folder(fabric: Fabric) -> Iterator[Path]:
    """A temporary folder that all ranks of this machine see."""
    with tempfile.TemporaryDirectory(prefix="histofold-") as mine:
        yield Path(str(fabric.broadcast(mine)))
        fabric.barrier()


def member_of(network: nn.Module, spec: Spec) -> Member:
    """The network under training (its EMA) as a member, for validation."""
    options = {key: value for key, value in spec.target.items() if key != "name"}
    target = targets.build(spec.target["name"], **options)
    return Member(network.eval(), target, Preprocess.from_dict(spec.preprocess), spec)


def spec_of(config: Config, workspace: Workspace, samples: list[str]) -> Spec:
    """What the checkpoint will say about itself; `samples` are those that the network has seen."""
    augment = AugmentOptions(**config.augment)
    return Spec(
        competition=config.competition.name,
        run=config.run_name(),
        fold=config.fold,
        model=dict(config.model),
        target=dict(config.target),
        preprocess=preprocess_of(augment, workspace.competition, workspace.recipe.scale).to_dict(),
        tile=config.train.crop,
        scale=workspace.recipe.scale,
        training={
            "seed": config.seed,
            "epochs": config.train.epochs,
            "samples_per_epoch": config.train.samples_per_epoch,
            "samples": samples,
        },
    )


def build(
    config: Config, workspace: Workspace, fabric: Fabric, spec: Spec, table: pd.DataFrame, start: Start | None
) -> tuple[Parts, CropDataset]:
    """Network (with the weights it starts from), loss, optimiser, EMA and data of one fold."""
    target = targets.build(config.target["name"], **{k: v for k, v in config.target.items() if k != "name"})
    options = {key: value for key, value in config.model.items() if key != "name"}
    network = models.build(config.model["name"], outputs=target.channels, **options)
    if start is not None and start.state:
        line = start.load_into(network)
        if fabric.is_global_zero:
            print(line, flush=True)
    network = network.to(fabric.device, memory_format=memory_format(network, fabric))
    loss = losses.build(dict(config.loss) or target.default_loss, target)
    settings = OptimizerOptions(**config.optimizer)
    optimizer = build_optimizer(network, settings, fused=not scaled(fabric))
    per_epoch = steps_per_epoch(config.train, fabric.world_size)
    schedule = build_schedule(optimizer, settings, per_epoch * config.train.epochs, per_epoch)
    preprocess = Preprocess.from_dict(spec.preprocess)
    parts = Parts(
        model=network,
        ema=ModelEmaV3(network, decay=config.train.ema, use_warmup=True),
        optimizer=optimizer,
        schedule=schedule,
        loss=loss.to(fabric.device),
        preprocess=preprocess,
        memory_format=memory_format(network, fabric),
    )
    store = workspace.store()
    training = table.loc[table["fold"] != config.fold, "sample_id"]
    rows = store.tiles[store.tiles["sample_id"].isin(training)]
    if rows.empty:
        raise DataError(f"{workspace.store_path}: no tile of the training folds; check prepare.min_tissue and folds")
    augment = AugmentOptions(**config.augment)
    check_mixing(augment, workspace.competition)
    strata = table.set_index("sample_id")["stratum"]
    dataset = CropDataset(
        store,
        rows,
        target,
        preprocess,
        augment,
        crop=config.train.crop,
        count=config.train.samples_per_epoch,
        bins=config.train.balance,
        seed=config.seed,
        needs=loss.needs,
        weight_map=loss.weight_map,
        strata=strata.loc[rows["sample_id"]].astype(str).tolist(),
        even_strata=config.train.even_strata,
        instances=workspace.competition.truth == "instances",
    )
    return parts, dataset
