"""What an export is: the competition, how to predict, and the time there is; written by `kernel`, read on Kaggle."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from histofold.errors import DataError
from histofold.files import digest, read_json, write_json

FORMAT = 2
MARKER = "histofold-export.json"
"""Name of the manifest: the folder that holds it is the export, wherever Kaggle has put it."""

MODELS = "models"
"""Folder of the export with the checkpoints and the ensemble, laid out as below `oof/`."""

PACKAGE = "package"
"""Folder of the export that goes onto the Python path."""

WHEELS = "wheels"
"""Folder of the export with packages that Kaggle's image lacks."""


FOLDER = "{folder}"
"""Begins an option of the competition that names something inside the competition's data, wherever that is mounted."""


@dataclass(frozen=True)
class Wheel:
    """A package that the export brings along.

    Attributes:
        name: of the distribution.
        version: of its wheel, the oldest where there is one for each of several Pythons.
        asked: whether the user listed it; then it is installed whatever the image has.
    """

    name: str
    version: str
    asked: bool


@dataclass(frozen=True)
class Manifest:
    """An export, kept as JSON.

    Attributes:
        dataset: `owner/slug` of the Kaggle dataset that it becomes.
        stamp: of everything in it; the notebook refuses a dataset of another one (Kaggle may still unpack the newest).
        name: of the ensemble.
        competition: name, adapter, slug and options, as in configs/competition/; see `FOLDER`.
        predict: `histofold.inference.settings.Settings` as a dict.
        min_area, max_hole: full-size pixels; smaller objects are dropped, holes up to that size filled.
        hours: wall time that the notebook may take.
        wheels: what is installed from wheels/ where it was asked for, or the image has none or an older one.
    """

    dataset: str
    stamp: str
    name: str
    competition: dict[str, Any]
    predict: dict[str, Any]
    min_area: int
    max_hole: int
    hours: float
    wheels: tuple[Wheel, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write it into the export's folder; gives its path."""
        path = folder / MARKER
        write_json(path, {"format": FORMAT, **asdict(self)})
        return path

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it from the export's folder.

        Raises:
            DataError: it is not there, of another format, or keys are missing or unknown.
        """
        path = folder / MARKER
        values = read_json(path)
        known = {"format", *(item.name for item in fields(cls))}
        if not isinstance(values, dict) or set(values) != known or values["format"] != FORMAT:
            raise DataError(f"{path}: not an export of format {FORMAT}; make it again with `./run.sh kernel`")
        del values["format"]
        return cls(**{**values, "wheels": tuple(Wheel(**wheel) for wheel in values["wheels"])})


def stamp_of(*parts: Any) -> str:
    """What identifies an export's contents, as 16 hexadecimal digits."""
    return digest(list(parts))
