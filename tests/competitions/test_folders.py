"""Images beside labels: ids that fit, index.csv, binary masks, a second folder of test images."""

from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import rasterio

from histofold import competitions
from histofold.cli import main
from histofold.competitions.base import Competition
from histofold.competitions.instances import contacts
from histofold.config import CompetitionConfig
from histofold.errors import DataError
from histofold.tiles.records import inputs_digest

PLACES = ("input", "prepared", "oof", "submissions")


def opened(root: Path, **options: Any) -> Competition:
    return competitions.open(CompetitionConfig("own", "folders", None, {"folder": root.name, **options}), root.parent)


def test_images_and_instances(folder: Path) -> None:
    competition = opened(folder)
    assert [(s.sample_id, s.split, s.height, s.width, s.group) for s in competition.samples()] == [
        (key, "train", 12, 15, key) for key in "abc"
    ]
    labels = competition.labels("a")
    assert labels is not None
    assert labels.dtype == np.uint8
    assert np.unique(labels).tolist() == [0, 1, 2], "700 in a file of 180 pixels"
    assert competition.image("b").shape == (12, 15, 3)
    assert competition.metric == "dsb"
    assert competition.csv is None
    assert not competition.merged
    assert competition.submission_ids() == []


def test_foreground_only(folder: Path) -> None:
    competition = opened(folder, truth="mask")
    labels = competition.labels("a")
    assert labels is not None
    assert np.unique(labels).tolist() == [0, 1]
    assert competition.metric == "dice"


def test_binary_masks_become_components_and_say_so(folder: Path, png: Any) -> None:
    for key in "abc":
        mask = np.zeros((12, 15), np.uint8)
        mask[1:3, 1:3] = mask[6:8, 6:8] = 255
        png(folder / "masks" / f"{key}.png", mask)
    competition = opened(folder, labels="masks")
    labels = competition.labels("a")
    assert labels is not None
    assert np.bincount(labels.ravel()).tolist() == [172, 4, 4]
    assert competition.merged
    assert not opened(folder, labels="masks", truth="mask").merged


@pytest.mark.parametrize(
    ("options", "metric"),
    [
        ({"merged": True}, "dice"),
        ({"labels": "masks"}, "dice"),
        ({"merged": True, "metric": "dsb"}, "dsb"),
        ({"merged": True, "metric": "aji"}, "aji"),
        ({"merged": True, "truth": "mask", "metric": "iou"}, "iou"),
        ({}, "dsb"),
    ],
)
def test_merged_labels_are_ranked_by_pixel_unless_told_otherwise(
    folder: Path, png: Any, options: dict[str, Any], metric: str
) -> None:
    binary(folder, png, "masks")
    competition = opened(folder, **options)
    assert competition.metric == metric
    assert pickle.loads(pickle.dumps(competition)).metric == metric


def spots(folder: Path, png: Any, gap: int) -> None:
    """Ten times four squares a file in labels/, `gap` pixels between the first two of them; all others lie apart."""
    for key in "abc":
        labels = np.arange(1, 41, dtype=np.uint8).reshape(10, 4).repeat(4, 0).repeat(4, 1)
        rows, columns = np.indices(labels.shape)
        apart = np.where((rows % 4 < 2) & (columns % 4 < 2), labels, 0)
        apart[:2, 2:4] = 2 if gap == 0 else 0
        png(folder / "images" / f"{key}.png", np.full((*labels.shape, 3), ord(key), np.uint8))
        png(folder / "labels" / f"{key}.png", apart.astype(np.uint8))


def preparing(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What `prepare` prints."""
    places = [f"paths.{name}={folder.parent if name == 'input' else folder.parent / name}" for name in PLACES]
    overrides = ["competition=folders", "prepare.n_folds=2", "prepare.workers=1", *places]
    assert main("prepare", [*overrides, *more]) == 0
    return capsys.readouterr().out


def test_labels_none_of_which_touch_may_be_merged(
    folder: Path, png: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    spots(folder, png, 2)
    said = preparing(folder, capsys)
    (line,) = (line for line in said.splitlines() if "may be" in line and "components" in line)
    assert f"note: {folder / 'labels'}: no two of 120 objects in 3 label images touch" in line
    assert "competition.options.merged=true" in line
    assert line in preparing(folder, capsys), "said without reading anything again"
    assert "no two of" not in preparing(folder, capsys, "competition.options.merged=true")
    assert "no two of" not in preparing(folder, capsys, "competition.options.truth=mask", "prepare.force=true")
    spots(folder, png, 0)
    assert "no two of" not in preparing(folder, capsys, "prepare.force=true")


def test_too_few_labels_tell_nothing(folder: Path, png: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spots(folder, png, 2)
    for path in sorted((folder / "labels").glob("*.png"))[1:]:
        labels = np.asarray(PIL.Image.open(path)).copy()
        labels[8:] = 0
        png(path, labels)
    assert "no two of" not in preparing(folder, capsys)
    counts = {key: {"instances": 200, "touching": 0} for key in "abc"}
    competition = opened(folder)
    assert len(competition.doubts(counts)) == 1
    assert competition.doubts({**counts, "b": {}}) == [], "prepared when nobody looked"
    (empty,) = competition.doubts({**counts, "b": {"instances": 0, "touching": 0}})
    assert "holds no object (b)" in empty, "nothing of the two images with objects"


def test_objects_that_share_a_corner_do_not_touch() -> None:
    assert contacts(np.array([[1, 0], [0, 7]], np.uint32)) == {"instances": 2, "touching": 0}
    assert contacts(np.array([[1, 0], [7, 0]], np.uint32)) == {"instances": 2, "touching": 1}
    assert contacts(np.array([[3, 0, 3], [3, 3, 3]])) == {"instances": 1, "touching": 0}
    assert contacts(np.zeros((0, 4), np.uint8)) == {"instances": 0, "touching": 0}


def test_masks_of_the_test_folder_are_marked_as_merged(folder: Path, png: Any) -> None:
    png(folder.parent / "held_out" / "images" / "q.png", np.zeros((9, 9, 3), np.uint8))
    assert not opened(folder, test="held_out").merged
    png(folder.parent / "held_out" / "masks" / "q.png", np.eye(9, dtype=np.uint8))
    assert opened(folder, test="held_out").merged


def test_masks_saved_as_jpeg_are_thresholded(folder: Path) -> None:
    (folder / "masks").mkdir()
    for key in "abc":
        mask = np.zeros((12, 15), np.uint8)
        mask[2:9, 2:9] = 255
        PIL.Image.fromarray(mask).save(folder / "masks" / f"{key}.jpg", quality=60)
    labels = opened(folder, labels="masks").labels("a")
    assert labels is not None
    assert abs(int(labels.sum()) - 49) <= 4


def test_index_gives_group_stratum_and_split(folder: Path, table: Any) -> None:
    header = ["id", "type", "group", "split"]
    rows = [["a", "he", "p1", ""], ["b", "pas", "p1", "train"], ["c", "he", "", "test"]]
    table(folder / "index.csv", [header, *rows])
    found = {s.sample_id: s for s in opened(folder).samples()}
    assert (found["a"].group, found["a"].stratum, found["a"].split) == ("p1", "he", "train")
    assert (found["c"].group, found["c"].split) == ("c", "test")
    assert opened(folder).submission_ids() == ["c"]
    table(folder / "index.csv", [["id", "stain", "case"], ["a", "x", "1"], ["b", "y", "1"], ["c", "x", "2"]])
    named = {s.sample_id: s for s in opened(folder, group="case", stratum="stain").samples()}
    assert (named["b"].group, named["b"].stratum) == ("1", "y")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([["id"], ["a"], ["b"], ["c"], ["d"]], {}, "id 'd' has no image"),
        ([["id"], ["a"], ["b"]], {}, "no row for image c"),
        ([["id"], ["a"], ["b"], ["b"], ["c"]], {}, "id 'b' is there twice"),
        ([["name"], ["a"]], {}, "no column 'id'"),
        ([["id"], ["a"], ["b"], ["c"]], {"group": "case"}, "no column 'case'"),
    ],
)
def test_an_index_that_does_not_fit(
    folder: Path, table: Any, rows: list[list[str]], options: dict[str, str], message: str
) -> None:
    table(folder / "index.csv", rows)
    with pytest.raises(DataError, match=message):
        opened(folder, **options).samples()


def test_an_index_that_is_no_table_in_utf_8(folder: Path, table: Any) -> None:
    (folder / "index.csv").write_bytes("id,group\na,Müller\nb,x\nc,x\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"index\.csv: not text in UTF-8.*save the table as CSV in UTF-8"):
        opened(folder).samples()
    table(folder / "index.csv", [["id", "group", "split"], ["a", "p"], ["b"], ["c", "q", "test"], ["", "", ""]])
    found = [(sample.group, sample.split) for sample in opened(folder).samples()]
    assert found == [("p", "train"), ("b", "train"), ("q", "test")], "a row may end early"


def test_a_named_column_without_an_index(folder: Path) -> None:
    with pytest.raises(DataError, match=r"index\.csv: no such file.*options\.group=case"):
        opened(folder, group="case").check()


def test_ids_that_do_not_fit(folder: Path, png: Any) -> None:
    (folder / "labels" / "b.png").unlink()
    with pytest.raises(DataError, match=r"labels: no labels for b \(1 of 3 are missing\)"):
        opened(folder).check()
    png(folder / "labels" / "b.png", np.zeros((12, 15), np.uint8))
    png(folder / "labels" / "z.png", np.zeros((12, 15), np.uint8))
    with pytest.raises(DataError, match=r"z\.png belongs to no image"):
        opened(folder).check()


def test_two_files_with_one_id(folder: Path) -> None:
    PIL.Image.new("RGB", (15, 12)).save(folder / "images" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png have the same id"):
        opened(folder).check()


def test_empty_and_missing_folders(folder: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        opened(folder, images="pictures").check()
    with pytest.raises(DataError, match="truth: no label images"):
        opened(folder, labels="truth").check()
    with pytest.raises(DataError, match=r"no such folder; competition\.options\.test=elsewhere"):
        opened(folder, test="elsewhere").check()


def test_labels_of_another_size(folder: Path, png: Any) -> None:
    png(folder / "labels" / "a.png", np.zeros((12, 16), np.uint8))
    with pytest.raises(DataError, match=r"a\.png: this mask is 12 × 16 .*image a\.png 12 × 15"):
        opened(folder).labels("a")


def test_test_folder_with_solution(folder: Path, table: Any, png: Any) -> None:
    other = folder.parent / "held_out"
    png(other / "images" / "q.png", np.zeros((9, 9, 3), np.uint8))
    png(other / "images" / "r.png", np.zeros((9, 9, 3), np.uint8))
    header = ["ImageId", "EncodedPixels", "Height", "Width", "Usage"]
    table(other / "stage1_solution.csv", [header, ["q", "1 4", 9, 9, "Public"], ["q", "20 2", 9, 9, "Public"]])
    table(other / "index.csv", [["id", "type"], ["q", "he"], ["r", "pas"]])
    competition = opened(folder, test="held_out", csv="dsb2018")
    assert competition.submission_ids() == ["q", "r"]
    assert [s.stratum for s in competition.samples() if s.split == "test"] == ["he", "pas"]
    labels = competition.labels("q")
    assert labels is not None
    assert np.bincount(labels.ravel()).tolist() == [75, 4, 2]
    assert competition.labels("r") is None
    assert competition.csv is not None
    assert competition.csv.id_column == "ImageId"


def test_test_folder_with_an_id_of_training(folder: Path, png: Any) -> None:
    png(folder.parent / "held_out" / "images" / "a.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match="id 'a' is also that of"):
        opened(folder, test="held_out").check()


def test_derived_types_and_groups(folder: Path, png: Any) -> None:
    rng = np.random.default_rng(1)
    field = (rng.integers(0, 60, (12, 30, 1)).repeat(3, axis=2)).astype(np.uint8)
    field[:, 10:20] = np.linspace(0, 60, 12).astype(np.uint8)[:, None, None]
    png(folder / "images" / "a.png", field[:, :15])
    png(folder / "images" / "b.png", field[:, 15:])
    png(folder / "images" / "c.png", np.tile(np.array([210, 120, 190], np.uint8), (12, 15, 1)))
    found = {s.sample_id: s for s in opened(folder, derive=True).samples()}
    assert found["a"].group == found["b"].group == "a"
    assert found["c"].group == "c"
    assert [found[key].stratum for key in "abc"] == ["fluorescence", "fluorescence", "histology"]


def test_derived_and_given_groups_are_joined(folder: Path, table: Any, png: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 60, (12, 15, 3)).astype(np.uint8)
    png(folder / "images" / "a.png", pixels)
    png(folder / "images" / "c.png", pixels[::-1])  # the same picture, so the two given groups are one
    table(folder / "index.csv", [["id", "group", "type"], ["a", "p", "he"], ["b", "q", ""], ["c", "q", ""]])
    found = opened(folder, derive=True).samples()
    assert [s.group for s in found] == ["p", "p", "p"]
    assert [s.stratum for s in found] == ["he", "fluorescence", "fluorescence"]


def test_label_tiffs_of_16_and_32_bits(folder: Path) -> None:
    for dtype in ("uint16", "uint32"):
        values = np.zeros((1, 12, 15), dtype)
        values[0, 3, 4] = np.iinfo(dtype).max
        for path in (folder / "labels").glob("a.*"):
            path.unlink()
        with rasterio.open(
            folder / "labels" / "a.tif", "w", driver="GTiff", height=12, width=15, count=1, dtype=dtype
        ) as target:
            target.write(values)
        labels = opened(folder).labels("a")
        assert labels is not None
        assert labels[3, 4] == 1, "a number larger than the image has pixels would make tables as large"
        assert labels.sum() == 1


def test_truncated_label_tiff(folder: Path) -> None:
    (folder / "labels" / "a.png").rename(folder / "labels" / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: not a whole TIFF"):
        opened(folder).labels("a") if (folder / "labels" / "a.tif").write_bytes(b"II*\0\x08") else None


def binary(folder: Path, png: Any, name: str = "labels", keys: str = "abc") -> None:
    for key in keys:
        mask = np.zeros((12, 15), np.uint8)
        mask[1:3, 1:3] = mask[6:8, 6:8] = 255
        png(folder / name / f"{key}.png", mask)


def test_binary_masks_among_labels_are_refused(folder: Path, png: Any) -> None:
    assert not any("one value" in note for note in opened(folder).notes())
    binary(folder, png, keys="ab")
    assert not any("one value" in note for note in opened(folder).notes()), "c has one object in one part"
    binary(folder, png)
    expected = r"labels: 3 of 3 label files looked at hold one value in several parts.*rename labels/ to masks/"
    with pytest.raises(DataError, match=expected):
        opened(folder).notes()
    (note, _) = opened(folder, labels="labels").notes()
    assert "rename labels/ to masks/" in note
    assert not any("one value" in note for note in opened(folder, truth="mask").notes())
    (folder / "labels").rename(folder / "masks")
    competition = opened(folder)
    assert not any("one value" in note for note in competition.notes())
    labels = competition.labels("a")
    assert labels is not None
    assert labels.max() == 2


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_labels_in_colours_are_refused(folder: Path, suffix: str) -> None:
    colours = np.zeros((12, 15, 3), np.uint8)
    colours[1:3, 1:3], colours[6:8, 6:8] = (255, 0, 0), (0, 255, 0)
    (folder / "labels" / "a.png").unlink()
    path = folder / "labels" / f"a{suffix}"
    PIL.Image.fromarray(colours).save(path)
    with pytest.raises(DataError, match=rf"a\{suffix}: its colours are no numbers of objects"):
        opened(folder).labels("a")
    found = opened(folder, truth="mask").labels("a")
    assert found is not None
    assert found.sum() == 8, "only foreground counts"
    grey = np.where(colours.any(axis=2, keepdims=True), np.uint8(3), np.uint8(0)).repeat(3, axis=2)
    PIL.Image.fromarray(np.dstack([grey, np.full((12, 15), 255, np.uint8)])).save(path)
    labels = opened(folder).labels("a")
    assert labels is not None
    assert np.unique(labels).tolist() == [0, 3], "equal channels are numbers, and alpha is none"


def test_splits_are_known_whatever_their_case(folder: Path, table: Any) -> None:
    rows = [["a", "Train ", " p"], ["b", "TEST", "p "], ["c", "testA", "q"]]
    table(folder / "index.csv", [["id", "split", "group"], *rows])
    found = [(sample.split, sample.group) for sample in opened(folder).samples()]
    assert found == [("train", "p"), ("test", "p"), ("testA", "q")]


def test_derived_groups_without_a_broken_image(folder: Path, table: Any, png: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 60, (12, 15, 3)).astype(np.uint8)
    png(folder / "images" / "a.png", pixels)
    png(folder / "images" / "c.png", pixels[::-1])
    table(folder / "index.csv", [["id", "group", "type"], ["a", "p", "he"], ["b", "q", "he"], ["c", "q", ""]])
    path = folder / "images" / "c.png"
    path.write_bytes(path.read_bytes()[:-40])
    competition = opened(folder, derive=True)
    assert [(s.height, s.group, s.stratum) for s in competition.samples()] == [
        (12, "p", "he"), (12, "q", "he"), (0, "c", "unreadable"),
    ]  # fmt: skip
    assert competition.stratum("a") == "he"
    assert opened(folder).stratum("c") == "image"
    png(path, pixels[::-1])
    assert opened(folder, derive=True).stratum("c") == "fluorescence"


def test_a_solution_that_changes_changes_the_digest(folder: Path, table: Any, png: Any) -> None:
    other = folder.parent / "held_out"
    png(other / "images" / "q.png", np.zeros((9, 9, 3), np.uint8))
    found = []
    for runs in ("1 4", "1 5"):
        table(other / "stage1_solution.csv", [["ImageId", "EncodedPixels"], ["q", runs]])
        found.append(inputs_digest(opened(folder, test="held_out"), "q"))
    assert found[0] != found[1]
    assert opened(folder, test="held_out").truth_digest("a") == ""


def test_prepare_counts_splits_and_names_what_it_leaves_out(
    folder: Path, table: Any, png: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for key in "abc":
        png(folder / "images" / f"{key}.png", rng.integers(0, 60, (12, 15, 3)).astype(np.uint8))
    rows = [["a", "Train"], ["b", "train "], ["c", "validation"]]
    table(folder / "index.csv", [["id", "split"], *rows])
    places = [f"paths.{name}={folder.parent if name == 'input' else folder.parent / name}" for name in PLACES]
    overrides = ["competition=folders", "prepare.n_folds=2", "prepare.workers=1", *places]
    assert main("prepare", overrides) == 0
    assert "samples: train 2, validation 1\n" in capsys.readouterr().out
    whole = (folder / "images" / "b.png").read_bytes()
    (folder / "images" / "b.png").write_bytes(whole[:-40])
    derived = [*overrides, "competition.options.derive=true", "prepare.force=true"]
    assert main("prepare", derived) == 1
    expected = "images of 1 groups that can be read, expected at least 2; the splits found are train 2, validation 1"
    assert expected in capsys.readouterr().err
    table(folder / "index.csv", [["id", "split"], *rows[:2], ["c", "TRAIN"]])
    assert main("prepare", derived) == 1, "the broken image is told"
    output = capsys.readouterr()
    assert "note: b: cannot be read, so that the group is not known: left out" in output.out
    assert "b.png: not a whole image" in output.err
    (folder / "images" / "b.png").write_bytes(whole)
    assert main("prepare", derived[:-1]) == 0
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize(("name", "save"), [
    ("a.jpg", {"format": "JPEG"}), ("a.png", {"format": "JPEG"}), ("a.tif", {"format": "JPEG"}),
    ("a.tif", {"format": "TIFF", "compression": "jpeg"}),
])  # fmt: skip
def test_labels_saved_as_jpeg_are_refused(folder: Path, name: str, save: dict[str, str]) -> None:
    """Numbers 1 to 6 come back as others, and objects get rims: 6 nuclei were read as 185."""
    labels = np.arange(1, 7, dtype=np.uint8).reshape(2, 3).repeat(6, 0).repeat(5, 1) * 40
    (folder / "labels" / "a.png").unlink()
    path = folder / "labels" / name
    PIL.Image.fromarray(labels).save(path, **save)
    for truth in ("instances", "mask"):
        with pytest.raises(DataError, match=rf"{name}: is compressed as JPEG.*save the labels anew as PNG.*masks/"):
            opened(folder, truth=truth).labels("a")
    (folder / "labels").rename(folder / "masks")
    assert opened(folder).labels("a") is not None, "binary masks may be, see above"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,group\na.png,p\nb.png,p\nc.png,q\n", r"id 'a\.png' is the name of a file \(3 rows .*ending: a$"),
        ("id;group;type\na;p;x\n", r"separated by semicolons \('id;group;type'\), expected commas; save the table"),
        ("id\tgroup\na\tp\n", r"separated by tabs .*, expected commas"),
        ("id,group\na.0,p\n", r"id 'a\.0' has no image"),
    ],
)
def test_an_index_as_people_write_it(folder: Path, text: str, message: str) -> None:
    (folder / "index.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        opened(folder).samples()


def into_masks(folder: Path, values: np.ndarray[Any, np.dtype[Any]], name: str = "a.png") -> Competition:
    """The folder with empty masks/ in place of labels/, but for one file of these values."""
    shape = values.shape[:2]
    (folder / "masks").mkdir(exist_ok=True)
    for key in "abc":
        PIL.Image.new("RGB", shape[::-1]).save(folder / "images" / f"{key}.png")
        PIL.Image.new("L", shape[::-1]).save(folder / "masks" / f"{key}.png")
    (folder / "masks" / "a.png").unlink()
    PIL.Image.fromarray(values).save(folder / "masks" / name)
    return opened(folder, labels="masks")


def numbered(count: int, factor: int = 1) -> np.ndarray[Any, np.dtype[Any]]:
    """Squares of 4 × 4 with the numbers 1 to `count` times `factor`, apart, in rows of 20."""
    rows, columns = np.indices((6 * (1 + (count - 1) // 20), 120))
    numbers = 1 + rows // 6 * 20 + columns // 6
    return np.where((rows % 6 < 4) & (columns % 6 < 4) & (numbers <= count), numbers * factor, 0)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (numbered(200).astype(np.uint8), r"201 values \(0, 1, 2, 3, …\)"),
        (numbered(300).astype(np.uint16), r"301 values \(0, 1, 2, 3, …\)"),
        (numbered(2).astype(np.uint8), r"3 values \(0, 1, 2\)"),
        (numbered(2, 127).astype(np.uint8), r"3 values \(0, 127, 254\)"),
        (np.minimum(numbered(30) % 2 * 255 + (numbered(30) > 0), 255).astype(np.uint8), r"3 values \(0, 1, 255\)"),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_numbers_among_masks_are_refused(
    folder: Path, values: np.ndarray[Any, np.dtype[Any]], found: str, name: str
) -> None:
    """Cut at 127, the first half of the objects, or a class, was lost without a word."""
    competition = into_masks(folder, values, name)
    expected = rf"masks/{name}: expected a binary mask, found {found} that fill areas.*rename masks/ to labels/"
    with pytest.raises(DataError, match=expected):
        competition.labels("a")


@pytest.mark.parametrize("interpolation", [cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
@pytest.mark.parametrize("factor", [0.5, 0.8, 2.7])
@pytest.mark.parametrize("top", [100, 255])
def test_masks_with_grey_rims_are_cut_at_half_of_their_largest_value(
    folder: Path, interpolation: int, factor: float, top: int
) -> None:
    mask = np.zeros((160, 160), np.uint8)
    for number in range(16):
        cv2.circle(mask, (20 + number % 4 * 40, 20 + number // 4 * 40), 4 + number, top, -1)
    grey = cv2.resize(mask, None, fx=factor, fy=factor, interpolation=interpolation).clip(0, top)
    assert len(np.unique(grey)) > 3
    labels = into_masks(folder, grey).labels("a")
    assert labels is not None
    assert labels.max() == 16
    assert abs((labels > 0).sum() / factor**2 / (mask > 0).sum() - 1) < 0.06, "the smallest are four pixels wide"
    if top < 255:
        return
    # What was a JPEG before is a little off everywhere.
    PIL.Image.fromarray(grey).save(folder / "before.jpg", quality=50)
    labels = into_masks(folder, np.asarray(PIL.Image.open(folder / "before.jpg"))).labels("a")
    assert labels is not None
    assert labels.max() == 16


@pytest.mark.parametrize("values", [(0, 1), (0, 100), (0, 255), (1, 2)])
def test_masks_of_two_values_stay_as_they_are(folder: Path, values: tuple[int, int]) -> None:
    labels = into_masks(folder, np.asarray(values, np.uint8)[np.minimum(numbered(12), 1)]).labels("a")
    assert labels is not None
    assert labels.max() == (12 if values[0] == 0 else 1)


def test_a_jpeg_mask_is_cut_at_half_of_its_largest_value(folder: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[13:47, 21:50] = 100
    for name in ("a.jpg", "a.tif"):
        (folder / "masks").mkdir(exist_ok=True)
        labels = into_masks(folder, mask, name).labels("a")
        (folder / "masks" / name).unlink()
        assert labels is not None
        assert abs(int((labels > 0).sum()) - 34 * 29) <= 8


NAMES = {form: [unicodedata.normalize(form, name) for name in ("Müller", "Ångström")] for form in ("NFC", "NFD")}


@pytest.mark.parametrize("forms", [("NFD", "NFC", "NFC"), ("NFC", "NFD", "NFC"), ("NFC", "NFC", "NFD")])
def test_ids_with_accents_are_one_however_they_are_written(
    folder: Path, png: Any, table: Any, forms: tuple[str, str, str]
) -> None:
    for kind, form in zip(("images", "labels"), forms[:2], strict=True):
        for path in (folder / kind).iterdir():
            path.unlink()
        for name in NAMES[form]:
            png(folder / kind / f"{name}.png", np.zeros((12, 15), np.uint8))
    groups = [unicodedata.normalize(form, "Köln") for form in ("NFC", "NFD")]
    table(folder / "index.csv", [["id", "group"], *zip(NAMES[forms[2]], groups, strict=True)])
    competition = opened(folder)
    found = competition.samples()
    assert [(sample.sample_id, sample.group) for sample in found] == [(name, "Köln") for name in NAMES["NFC"]]
    assert competition.source(NAMES["NFC"][0]).is_file(), "the path is that of the disk"
    assert competition.labels(NAMES["NFC"][0]) is not None


def test_a_solution_with_accents_is_found(folder: Path, table: Any, png: Any) -> None:
    other = folder.parent / "held_out"
    png(other / "images" / f"{NAMES['NFC'][0]}.png", np.zeros((9, 9, 3), np.uint8))
    table(other / "stage1_solution.csv", [["ImageId", "EncodedPixels"], [NAMES["NFD"][0], "1 4"]])
    labels = opened(folder, test="held_out").labels(NAMES["NFC"][0])
    assert labels is not None
    assert labels.sum() == 4


def test_columns_are_known_whatever_space_and_case(folder: Path, table: Any) -> None:
    text = " id , Group, TYPE ,Split\na, p , he, train\nb,p,pas,\nc,q,he,test\n"
    (folder / "index.csv").write_text(text)
    found = [(s.sample_id, s.group, s.stratum, s.split) for s in opened(folder).samples()]
    assert found == [("a", "p", "he", "train"), ("b", "p", "pas", "train"), ("c", "q", "he", "test")]
    assert [s.group for s in opened(folder, group="Group").samples()] == ["p", "p", "q"], "asked for as it is written"
    table(folder / "index.csv", [["id", "group", "Group "], ["a", "p", "x"], ["b", "p", "x"], ["c", "q", "x"]])
    with pytest.raises(DataError, match=r"index\.csv: columns 'group' and 'Group' both count as 'group'; rename"):
        opened(folder).samples()
    assert [s.group for s in opened(folder, group="Group").samples()] == ["x", "x", "x"]


def test_training_images_without_an_object_are_noted(
    folder: Path, table: Any, png: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["a", "train"], ["b", "train"], ["c", "test"]]
    table(folder / "index.csv", [["id", "split"], *rows])
    assert "no object" not in preparing(folder, capsys)
    for key in "bc":
        png(folder / "labels" / f"{key}.png", np.zeros((12, 15), np.uint8))
    for truth in ("instances", "mask"):
        said = preparing(folder, capsys, "prepare.force=true", f"competition.options.truth={truth}")
        assert f"note: {folder}: the truth of 1 of 2 training images holds no object (b); all is well if" in said
