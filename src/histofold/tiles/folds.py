"""The folds file: which sample is held out when; made once, shared by every model, meant to be read and edited.

Columns `sample_id, split, height, width, group, stratum, fold`; fold is -1 outside training, and for training images
that cannot be read where only their pixels would tell the group: any fold might give another image away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histofold import files, given
from histofold.competitions.base import UNREADABLE, Sample
from histofold.competitions.rows import nfc, require_columns
from histofold.errors import ConfigError, DataError

COLUMNS = ["sample_id", "split", "height", "width", "group", "stratum", "fold"]
TEXTS = dict.fromkeys(("sample_id", "split", "group", "stratum"), str)
RARE = "rare"
"""Stratum that stands for all those with fewer groups than folds while the folds are made."""


def make(samples: Sequence[Sample], n_folds: int, seed: int) -> pd.DataFrame:
    """Folds 0..n_folds-1 for the samples of split `train`, -1 for the others and for unreadable ones; sorted by id.

    No group is ever in two folds. Strata are spread evenly; a stratum with fewer groups than folds cannot be, so
    such strata are merged into one for the purpose (the column keeps the real one). The same samples, number and
    seed give the same folds on every machine.

    Raises:
        ConfigError: more folds than groups, or fewer than two folds.
        DataError: two samples with one id, or fewer than two groups, so that nothing can be held out.
    """
    ordered = sorted(samples, key=lambda sample: sample.sample_id)
    _require_unique(ordered)
    train = [sample for sample in ordered if sample.split == "train" and sample.stratum != UNREADABLE]
    groups = sorted({sample.group for sample in train})
    if n_folds < 2:
        raise ConfigError(f"prepare.n_folds={n_folds}: expected at least 2")
    if len(groups) < 2:
        raise DataError(
            f"no cross-validation is possible: training has images of {len(groups)} groups that can be read, expected "
            f"at least 2; the splits found are {by_split(ordered)}, and only train is trained on"
        )
    if len(groups) < n_folds:
        raise ConfigError(
            f"prepare.n_folds={n_folds}: there are only {len(groups)} groups in training ({', '.join(groups[:5])}); "
            f"set prepare.n_folds={len(groups)} or less"
        )
    fold_of = _assign(train, n_folds, seed)
    used = {sample.sample_id for sample in train}
    rows = [
        (*(getattr(sample, name) for name in COLUMNS[:-1]), fold_of[sample.group] if sample.sample_id in used else -1)
        for sample in ordered
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _require_unique(samples: Iterable[Sample]) -> None:
    twice = [key for key, count in Counter(sample.sample_id for sample in samples).items() if count > 1]
    if twice:
        raise DataError(f"sample {twice[0]!r} is there twice; ids must be unique")


def by_split(samples: Iterable[Sample]) -> str:
    """How many samples each split has, as in `train 24, test 4`; train comes first."""
    counts = Counter(sample.split for sample in samples)
    ordered = sorted(counts, key=lambda split: (split != "train", split))
    return ", ".join(f"{split} {counts[split]}" for split in ordered)


def left_out(folds: pd.DataFrame) -> list[str]:
    """Ids of the training images that have no fold because they could not be read, sorted."""
    unknown = (folds["split"] == "train") & (folds["stratum"] == UNREADABLE) & (folds["fold"] < 0)
    return sorted(folds.loc[unknown, "sample_id"])


def follow(path: Path, folds: pd.DataFrame, samples: Sequence[Sample]) -> tuple[pd.DataFrame, int, int]:
    """The table with rows for just the samples outside training that there are now, and how many came and went.

    Such rows only say what is known of a sample, so that no edit is lost; new ones come last. Columns of one's own are
    empty in them. All other rows stay.

    Args:
        path: of the folds file, for messages.
        folds: its table as texts, so that ids such as 007 and columns of one's own stay as they are.
        samples: what the files say now.

    Raises:
        DataError: it lacks a training sample, or has one that is not in the data; two new samples with one id.
    """
    _check_training(path, folds, samples)
    stays = folds["sample_id"].isin({sample.sample_id for sample in samples})
    known = set(folds["sample_id"])
    fresh = sorted((sample for sample in samples if sample.sample_id not in known), key=lambda each: each.sample_id)
    _require_unique(fresh)
    rows = [(*(str(getattr(sample, name)) for name in COLUMNS[:-1]), "-1") for sample in fresh]
    added = pd.DataFrame(rows, columns=COLUMNS, dtype=str).reindex(columns=folds.columns, fill_value="")
    return pd.concat([folds[stays], added], ignore_index=True), len(fresh), int((~stays).sum())


def settle(path: Path, folds: pd.DataFrame, samples: Sequence[Sample]) -> int:
    """Fill in what was not known of samples whose files can be read by now, in `folds` itself; gives how many rows.

    Each gets its size, and where the pixels had to tell them its group, stratum, and the fold of those that it belongs
    to now: if there are none, the fold with the fewest samples. Nothing else changes but the names of groups that it
    joins, which are one from then on.

    Args:
        path: of the folds file, for messages.
        folds: its table as texts, so that ids such as 007 and columns of one's own stay as they are.
        samples: what the files say now.

    Raises:
        DataError: an image joins groups that are in two folds.
    """
    fresh = {sample.sample_id: sample for sample in samples if sample.height * sample.width}
    sizes = pd.to_numeric(folds["height"]) * pd.to_numeric(folds["width"])
    rows = folds.index[(sizes == 0) & folds["sample_id"].isin(fresh)]
    for row in rows:
        sample = fresh[folds.loc[row, "sample_id"]]
        if folds.loc[row, "stratum"] == UNREADABLE:
            train = folds.loc[row, "split"] == "train"
            group, fold = _joined(path, folds, sample, samples) if train else (sample.group, -1)
            folds.loc[row, ["group", "stratum", "fold"]] = [group, sample.stratum, str(fold)]
        folds.loc[row, ["height", "width"]] = [str(sample.height), str(sample.width)]
    return len(rows)


def _joined(path: Path, folds: pd.DataFrame, sample: Sample, samples: Sequence[Sample]) -> tuple[str, int]:
    """Group and fold of a training image that can be read by now; the groups that it joins get one name in `folds`."""
    together = {other.sample_id for other in samples if other.group == sample.group} - {sample.sample_id}
    numbers = pd.to_numeric(folds["fold"])
    used = (folds["split"] == "train") & (numbers >= 0)
    members = folds[used & folds["sample_id"].isin(together)]
    found = sorted(set(numbers[members.index]))
    if len(found) > 1:
        first = [members.sample_id[numbers[members.index] == fold].iloc[0] for fold in found]
        raise DataError(
            f"{path}: {sample.sample_id!r} can be read now and shows the same field as "
            + " and ".join(f"{key!r} in fold {fold}" for key, fold in zip(first, found, strict=True))
            + "; prepare.force=true makes folds anew, or leave it out: write another stratum than "
            f"{UNREADABLE} into its row"
        )
    if not found:
        sizes = numbers[used].value_counts()
        return sample.group, int(min(sizes.index, key=lambda fold: (sizes[fold], fold), default=-1))
    name = str(members["group"].iloc[0])
    folds.loc[used & folds["group"].isin(set(members["group"])), "group"] = name
    return name, int(found[0])


def _assign(train: Sequence[Sample], n_folds: int, seed: int) -> dict[str, int]:
    """Fold of each group."""
    from sklearn.model_selection import StratifiedGroupKFold

    strata = merged_strata(train, n_folds)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    groups = np.array([sample.group for sample in train])
    fold_of: dict[str, int] = {}
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(train)), strata, groups)):
        fold_of.update(dict.fromkeys(groups[held_out].tolist(), fold))
    return fold_of


def merged_strata(train: Sequence[Sample], n_folds: int) -> list[str]:
    """The stratum of each sample, with those of fewer groups than folds merged into `rare`.

    If even together they have fewer groups than folds, they join the largest stratum.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for sample in train:
        groups[sample.stratum].add(sample.group)
    few = {stratum for stratum, members in groups.items() if len(members) < n_folds}
    if not few:
        return [sample.stratum for sample in train]
    together = set().union(*(groups[stratum] for stratum in few))
    common = sorted(set(groups) - few, key=lambda stratum: (-len(groups[stratum]), stratum))
    name = RARE if len(together) >= n_folds or not common else common[0]
    return [name if sample.stratum in few else sample.stratum for sample in train]


def in_cv(folds: pd.DataFrame) -> pd.DataFrame:
    """The rows that take part: training samples with a fold. Fold -1 leaves one out, of training and of scores."""
    return folds[(folds["split"] == "train") & (folds["fold"] >= 0)]


def parts(folds: pd.DataFrame) -> set[frozenset[str]]:
    """Training samples that are held out together, whatever their fold is called."""
    return {frozenset(members) for _, members in in_cv(folds).groupby("fold")["sample_id"]}


def write(path: Path, folds: pd.DataFrame) -> None:
    """Write folds.csv atomically."""
    with files.atomic(path) as temporary:
        folds[COLUMNS].to_csv(temporary, index=False, lineterminator="\n")


def read(path: Path, samples: Sequence[Sample] | None = None) -> pd.DataFrame:
    """Read folds.csv, which a person may have edited, and check it; with `samples` also against the data.

    Raises:
        DataError: missing file, column or id; an id twice or unknown; a fold that is no number, or set outside
            training; a group in two folds; folds that leave a gap.
    """
    try:
        # Ids such as 0486052bb or 007 are texts, and the group 67347 is one too.
        folds = pd.read_csv(path, dtype=TEXTS, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; make it with `./run.sh prepare`") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as CSV ({' '.join(str(error).split())})") from error
    require_columns(path, [str(name) for name in folds.columns], COLUMNS)
    folds["sample_id"] = folds["sample_id"].map(nfc)
    for name in ("height", "width", "fold"):
        folds[name] = _integers(folds[name], path, name)
    _check_ids(path, folds)
    if samples is not None:
        _check_training(path, folds, samples)
        _check_others(path, folds, samples)
    _check_folds(path, folds)
    return folds[COLUMNS]


def _integers(values: pd.Series, path: Path, name: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    bad = numbers.isna() | (numbers != numbers.round())
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"{path}: line {row + 2}: {name} is {str(values.iloc[row])!r}, expected a whole number")
    return numbers.astype(np.int64)


def _check_ids(path: Path, folds: pd.DataFrame) -> None:
    twice = folds.sample_id[folds.sample_id.duplicated()]
    if len(twice):
        raise DataError(f"{path}: line {int(twice.index[0]) + 2}: {twice.iloc[0]!r} is there twice")


def _check_training(path: Path, folds: pd.DataFrame, samples: Iterable[Sample]) -> None:
    """Raise DataError where the training samples of the table and of the data differ: only a person knows their fold.

    A sample that is in both counts as there, whatever split the table has for it.
    """
    splits = {sample.sample_id: sample.split for sample in samples}
    gone = set(folds.sample_id[folds.split == "train"]) - set(splits)
    new = {key for key, split in splits.items() if split == "train"} - set(folds.sample_id)
    for odd, text in (
        (sorted(gone), "is not in the data; delete its row"),
        (sorted(new), "is in the data but has no row; add it, or delete the file"),
    ):
        if odd:
            raise DataError(f"{path}: {odd[0]!r} {text} ({_count(odd)})")


def _check_others(path: Path, folds: pd.DataFrame, samples: Iterable[Sample]) -> None:
    """Raise DataError where samples outside training differ, whose rows `prepare` adds and drops by itself."""
    known = {sample.sample_id for sample in samples}
    name = path.stem.removeprefix("folds").removeprefix("-")
    how = given.again("prepare", path.absolute().parent.name, *([f"folds={name}"] if name else []))
    for odd, text in (
        (sorted(set(folds.sample_id) - known), "is not in the data"),
        (sorted(known - set(folds.sample_id)), "is in the data but has no row"),
    ):
        if odd:
            raise DataError(
                f"{path}: {odd[0]!r}, which is not trained on, {text} ({_count(odd)}); run `{how}`, which adds and "
                "drops such rows and keeps all others as they are"
            )


def _check_folds(path: Path, folds: pd.DataFrame) -> None:
    train = folds[folds.split == "train"]
    for wrong, text in (
        (train[train.fold < -1], "expected -1 (left out) or 0 and up"),
        (folds[(folds.split != "train") & (folds.fold != -1)], "expected -1, because its split is not train"),
    ):
        if len(wrong):
            row = wrong.iloc[0]
            raise DataError(f"{path}: line {int(wrong.index[0]) + 2}: {row.sample_id!r} has fold {row.fold}; {text}")
    used = in_cv(folds)
    for group, members in used.groupby("group", sort=True):
        first = members.drop_duplicates("fold")
        if len(first) > 1:
            where = ", ".join(f"{row.sample_id} in {row.fold}" for row in first.itertuples())
            raise DataError(
                f"{path}: group {group!r} is split over folds ({where}); samples of one group show the same "
                "patient or field and must share a fold"
            )
    gaps = sorted(set(range(int(used.fold.max()) + 1 if len(used) else 0)) - set(used.fold))
    if len(used) and (gaps or used.fold.nunique() < 2):
        found = ", ".join(map(str, sorted(set(used.fold))))
        raise DataError(f"{path}: folds {found}; expected at least two, numbered 0, 1, 2 … without a gap")


def _count(odd: Iterable[str]) -> str:
    count = len(list(odd))
    return "1 such id" if count == 1 else f"{count} such ids"
