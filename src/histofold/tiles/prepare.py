"""Raw samples → the store: in parallel, each sample once, whole or not at all, and nothing again that is still true."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from histofold import files, parallel
from histofold.competitions.base import Competition
from histofold.errors import DataError, HistofoldError
from histofold.tiles import records
from histofold.tiles.making import make_sample
from histofold.tiles.planning import Work, plan, state, work_of
from histofold.tiles.store import COLUMNS, VERSION, Recipe

__all__ = ["PrepareReport", "plan", "prepare", "work_of"]


@dataclass
class PrepareReport:
    """What `prepare` did.

    Attributes:
        folder: the store.
        made, kept: samples made now, and those that were still true.
        others: samples of other shards that are not finished yet.
        tiles: rows of the table, so far.
        seconds: wall time.
        note: why samples were made again, or that nothing was to do.
        counts: sums over the samples, see `Record.counts`.
        remarks: what is odd about the truth of samples that were made now, see `Competition.remark`, and about that of
            all of them, see `Competition.doubts`.
    """

    folder: Path
    made: int = 0
    kept: int = 0
    others: int = 0
    tiles: int = 0
    seconds: float = 0.0
    note: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float | None:
        """Share of the truth's area that lies in kept tiles of the grid; None without truth or grid."""
        return _share(self.counts, "area")

    @property
    def object_recall(self) -> float | None:
        """Share of the truth's objects whose centre lies in a kept tile of a grid; None without truth."""
        return _share(self.counts, "objects")

    def __str__(self) -> str:
        text = f"{self.folder}: {self.made} made, {self.kept} kept, {self.tiles} tiles, {self.seconds:.1f} s"
        if self.counts.get("looked_at"):
            text += f"; {self.counts['kept']} of {self.counts['looked_at']} tiles have tissue"
        if self.recall is not None:
            text += f" and hold {self.recall:.2%} of the truth's area"
        if self.object_recall is not None:
            text += f" and {self.counts['objects_kept']} of {self.counts['objects']} objects"
        if self.others:
            text += f"; {self.others} samples of other shards are not finished, the store opens when they are"
        text = f"{text}; {self.note}" if self.note else text
        return "\n".join([text, *(f"note: {remark}" for remark in self.remarks)])


def _share(counts: dict[str, int], name: str) -> float | None:
    total = counts.get(name, 0)
    return counts[f"{name}_kept"] / total if total else None


def prepare(
    competition: Competition,
    recipe: Recipe,
    folder: Path,
    workers: int = 0,
    shard: tuple[int, int] | None = None,
    force: bool = False,
    work: Work | None = None,
) -> PrepareReport:
    """Make the store of a competition in `folder`, or what of it is missing or no longer true.

    Args:
        competition: where samples and truth come from; slides are cut into tiles (training slides only), images are
            stored whole (every one whose truth is known).
        recipe: how.
        folder: of the store, `input/prepared/<competition>/<recipe.name>`.
        workers: processes; 0 means one for each core.
        shard: (i, n): only every n-th sample from the i-th on; the last shard to finish writes the table.
        force: make everything again.
        work: what `work_of` gave for the same arguments, where it was asked already.

    Raises:
        ConfigError: the recipe does not fit the competition.
        DataError: samples failed; the others are finished and kept.
    """
    begin = time.monotonic()
    work = work or work_of(competition, recipe, folder, shard, force)
    everyone, chosen, todo = work.everyone, work.chosen, work.todo
    report = PrepareReport(folder, made=len(todo), kept=len(chosen) - len(todo))
    if todo:
        (folder / "tiles.parquet").unlink(missing_ok=True)
        failed, report.remarks = _make_all(competition, recipe, folder, todo, workers)
        if failed:
            raise _failure(failed, len(chosen), report.remarks)
    # Asked again: other shards may have finished theirs while this one worked, and the last one writes the table.
    report.others = sum(state(competition, recipe, folder, key) != "true" for key in set(everyone) - set(chosen))
    found = {key: record for key in everyone if (record := records.read_record(folder, key)) is not None}
    gone: list[str] = []
    if not report.others:
        _write_table(folder, recipe, [found[sample_id] for sample_id in everyone], bool(todo))
        report.remarks += _doubts(competition, found)
        # Without being asked nothing goes: another machine may see samples that are not copied to this one yet.
        gone = records.strangers(folder, set(everyone), remove=force)
    report.note = _note(todo, work.states, force, gone)
    mine = [found[sample_id] for sample_id in chosen]
    report.tiles = sum(len(record.rows) for record in mine)
    for record in mine:
        for name, count in record.counts.items():
            report.counts[name] = report.counts.get(name, 0) + count
    report.seconds = time.monotonic() - begin
    return report


def _note(todo: Sequence[str], states: dict[str, str], force: bool, gone: Sequence[str]) -> str:
    if force:
        removed = [f"removed from the store, as there are no such samples any more: {_few(gone)}"] if gone else []
        return "; ".join(["made anew as asked (prepare.force)", *removed])
    removed = [f"no such samples any more, their files stay (prepare.force=true deletes them): {_few(gone)}"]
    removed = removed if gone else []
    if not todo:
        return "; ".join(["nothing to do, inputs and settings are as before", *removed])
    reasons = [states[sample_id] for sample_id in todo]
    parts = removed
    if "settings" in reasons:
        parts.append("the settings of this store have changed")
    if "inputs" in reasons:
        changed = [sample_id for sample_id in todo if states[sample_id] == "inputs"]
        parts.append(f"inputs have changed: {_few(changed)}")
    return "; ".join(parts)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _make_all(
    competition: Competition, recipe: Recipe, folder: Path, todo: list[str], workers: int
) -> tuple[dict[str, Exception], list[str]]:
    """Make samples in processes; gives the errors of those that failed, and what is odd about the others."""
    count = min(workers or parallel.cores(), len(todo))
    threads = max(1, parallel.cores() // count)
    make = partial(_make, competition, recipe, folder, threads)
    failed, remarks = {}, {}
    for sample_id, result in parallel.each(make, todo, workers, text="prepare"):
        if isinstance(result, Exception):
            failed[sample_id] = result
        elif result:
            remarks[sample_id] = result
    return failed, [remarks[sample_id] for sample_id in sorted(remarks)]


def _make(competition: Competition, recipe: Recipe, folder: Path, threads: int, sample_id: str) -> str:
    """Make one sample; gives what is odd about its truth."""
    with files.reading(competition.source(sample_id)):
        make_sample(competition, recipe, folder, threads, sample_id)
        ask = getattr(competition, "remark", None)
        return str(ask(sample_id)) if ask is not None else ""


def _doubts(competition: Competition, found: dict[str, records.Record]) -> list[str]:
    """What is odd about the truth of all samples together."""
    ask = getattr(competition, "doubts", None)
    return list(ask({key: record.counts for key, record in found.items()})) if ask is not None else []


def _failure(failed: dict[str, Exception], total: int, remarks: Sequence[str]) -> Exception:
    """One error for all samples that failed; unforeseen ones keep their traceback.

    Remarks about the others go with it, as those are kept from now on and not looked at again.
    """
    for error in failed.values():
        if not isinstance(error, HistofoldError):
            return error
    first = next(iter(sorted(failed)))
    also = "".join(f"; note: {remark}" for remark in remarks)
    if len(failed) == 1:
        error = failed[first]
        text = f"{error} (the other {total - 1} samples are finished and kept){also}"
        return type(error)(text) if total > 1 else error
    messages = "; ".join(str(failed[key]) for key in sorted(failed)[:3])
    return DataError(f"{len(failed)} of {total} samples failed, the others are finished and kept: {messages}{also}")


def _write_table(folder: Path, recipe: Recipe, done: list[records.Record], fresh: bool) -> None:
    """Write tiles.parquet and recipe.json from the records of all samples, where they are not those already."""
    fingerprint = files.digest([records.settings_digest(recipe), [[each.sample_id, each.content] for each in done]])
    content = {"version": VERSION, "settings": recipe.to_dict(), "fingerprint": fingerprint, "samples": len(done)}
    if not fresh and (folder / "tiles.parquet").is_file() and _is_there(folder / "recipe.json", content):
        return
    # First, as it is what a store is opened by: killed in between, it would say what the table is no more.
    (folder / "recipe.json").unlink(missing_ok=True)
    rows = [row for record in done for row in record.rows]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    with files.atomic(folder / "tiles.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    files.write_json(folder / "recipe.json", content)


def _is_there(path: Path, content: dict[str, Any]) -> bool:
    """Whether a JSON file holds just that; not so where it cannot be read."""
    try:
        return bool(files.read_json(path) == content)
    except DataError:
        return False
