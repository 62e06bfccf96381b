"""Opening competitions by name and by configuration."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from histofold import competitions
from histofold.competitions.base import Competition
from histofold.config import CompetitionConfig
from histofold.errors import ConfigError, DataError


@pytest.mark.parametrize("name", competitions.names())
def test_every_configured_competition_opens_and_says_what_is_missing(name: str, tmp_path: Path) -> None:
    competition = competitions.open(name, tmp_path)
    with pytest.raises(DataError, match="no data"):
        competition.check()
    assert isinstance(pickle.loads(pickle.dumps(competition)), Competition)


def test_missing_kaggle_data_names_the_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run\.sh download competition=dsb2018") as caught:
        competitions.open("dsb2018", tmp_path).check()
    assert str(tmp_path / "data-science-bowl-2018") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_adapters_and_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"competition=nothing.*dsb2018"):
        competitions.open("nothing", tmp_path)
    with pytest.raises(ConfigError, match=r"competition\.adapter=zip.*folders"):
        competitions.open(CompetitionConfig("x", "zip"), tmp_path)
    with pytest.raises(ConfigError, match=r"competition\.options\.colour: unknown.*layout"):
        competitions.open(CompetitionConfig("x", "folders", None, {"colour": 1}), tmp_path)
    with pytest.raises(ConfigError, match=r"competition\.options\.test=stage3"):
        competitions.open(CompetitionConfig("x", "dsb2018", None, {"test": "stage3"}), tmp_path)
    with pytest.raises(ConfigError, match=r"competition\.options\.masks=png"):
        competitions.open(CompetitionConfig("x", "hubmap_kidney", None, {"masks": "png"}), tmp_path)
    with pytest.raises(ConfigError, match=r"competition\.options\.layout=zip"):
        competitions.open(CompetitionConfig("x", "folders", None, {"layout": "zip"}), tmp_path)


def test_folder_counts_from_input_or_is_absolute(tmp_path: Path) -> None:
    near = competitions.open(CompetitionConfig("x", "folders", None, {"folder": "sub/set"}), tmp_path)
    far = competitions.open(CompetitionConfig("x", "folders", None, {"folder": str(tmp_path / "far")}), "elsewhere")
    assert near.root == tmp_path / "sub" / "set"
    assert far.root == tmp_path / "far"


def test_a_competition_that_builds_on_another_has_its_options() -> None:
    values = competitions.open("glomeruli", "input").settings
    assert values["metric"] == "dice"
    assert values["index"] == "index.csv"


def test_slides_have_no_labels_and_images_no_runs(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="mask"):
        competitions.open("hubmap_kidney", tmp_path).labels("x")
    with pytest.raises(NotImplementedError, match="labels"):
        competitions.open("dsb2018", tmp_path).mask("x")


def test_a_sample_is_not_drawn_into_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("histofold.sample.draw", refuse)
    with pytest.raises(DataError, match=r"demo_nuclei: cannot be written.*paths\.input"):
        competitions.open("demo_nuclei", tmp_path).provide()


def test_real_competitions_draw_nothing(tmp_path: Path) -> None:
    for name in ("dsb2018", "hubmap_kidney", "folders"):
        assert not competitions.open(name, tmp_path).provide()
    assert list(tmp_path.iterdir()) == []
