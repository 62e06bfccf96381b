"""Public sets as they are unpacked: where each layout looks, its groups and splits, and what it misses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from histofold import competitions
from histofold.competitions.base import Competition
from histofold.config import CompetitionConfig
from histofold.errors import DataError
from histofold.sample.kidney import write_tiff
from histofold.tiles.prepare import plan, prepare
from histofold.tiles.store import Recipe


def opened(root: Path, **options: Any) -> Competition:
    name = str(options["layout"])
    return competitions.open(CompetitionConfig(name, "folders", None, {"folder": root.name, **options}), root.parent)


def split_and_group(competition: Competition) -> dict[str, tuple[str, str]]:
    return {s.sample_id: (s.split, s.group) for s in competition.samples()}


def mask(*corners: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    values = np.zeros((20, 24), np.uint8)
    for y, x in corners:
        values[y : y + 3, x : x + 3] = 255
    return values


RGB = np.full((20, 24, 3), 180, np.uint8)


def test_kidney_he(tmp_path: Path, png: Any) -> None:
    root = tmp_path / "kidney_he"
    for part in ("train", "val", "test"):
        png(root / part / "data" / "1.png", RGB)
        png(root / part / "gts" / "1.png", mask((1, 1), (8, 8)))
    competition = opened(root, layout="kidney_he")
    assert {key: split for key, (split, _) in split_and_group(competition).items()} == {
        "train_1": "train", "val_1": "train", "test_1": "test",
    }  # fmt: skip
    labels = competition.labels("val_1")
    assert labels is not None
    assert labels.max() == 2
    assert competition.merged
    shutil.rmtree(root / "val" / "gts")
    with pytest.raises(DataError, match="gts: no label images"):
        opened(root, layout="kidney_he").check()


def test_kidney_he_groups(tmp_path: Path, png: Any, table: Any) -> None:
    root = tmp_path / "kidney_he"
    names = {"train": ("TCGA-B0-5696-01Z-00-DX1_3", "TCGA-B0-5696_7", "plain"), "test": ("kirc_TCGA-CJ-4642_1",)}
    for part, keys in names.items():
        for key in keys:
            png(root / part / "data" / f"{key}.png", RGB)
            png(root / part / "gts" / f"{key}.png", mask((1, 1)))
    competition = opened(root, layout="kidney_he")
    assert split_and_group(competition) == {
        "train_TCGA-B0-5696-01Z-00-DX1_3": ("train", "TCGA-B0-5696"), "train_TCGA-B0-5696_7": ("train", "TCGA-B0-5696"),
        "train_plain": ("train", "train_plain"), "test_kirc_TCGA-CJ-4642_1": ("test", "TCGA-CJ-4642"),
    }  # fmt: skip
    (note,) = competition.notes()
    assert "1 of 3 training images have no known group" in note
    assert "index.csv (columns id, group)" in note
    ids = [f"{part}_{key}" for part, keys in names.items() for key in keys]
    table(root / "index.csv", [["id", "group", "type"], *([key, "slide7", "grade 2"] for key in ids)])
    indexed = opened(root, layout="kidney_he")
    found = {(sample.split, sample.group, sample.stratum) for sample in indexed.samples()}
    assert found == {("train", "slide7", "grade 2"), ("test", "slide7", "grade 2")}
    assert indexed.notes() == []
    table(root / "index.csv", [["id", "group"], *([key, "slide7"] for key in ids[1:])])
    with pytest.raises(DataError, match=r"index\.csv: no row for image train_TCGA-B0-5696-01Z-00-DX1_3"):
        opened(root, layout="kidney_he").samples()


def test_a_truncated_tiff_stops_no_other(monuseg: Path) -> None:
    path = monuseg / "TestData" / "TCGA-2Z-A9J9-01A-01-TS1.tif"
    path.write_bytes(path.read_bytes()[:-20])
    competition = opened(monuseg, layout="monuseg")
    found = [(sample.height, sample.width, sample.group) for sample in competition.samples()]
    assert found == [(0, 0, "TCGA-2Z-A9J9"), (20, 24, "TCGA-AR-A1AK")]
    assert competition.labels("TCGA-AR-A1AK-01Z-00-DX1") is not None
    for read in (competition.image, competition.labels):
        with pytest.raises(DataError, match=rf"{path.name}: the TIFF is truncated"):
            read(path.stem)
    plan(competition, Recipe(), 1)
    with pytest.raises(DataError, match=rf"{path.name}: the TIFF is truncated.*the other 1 samples are finished"):
        prepare(competition, Recipe(), monuseg / "store", workers=1)


def test_tnbc(tmp_path: Path, png: Any) -> None:
    root = tmp_path / "tnbc"
    for slide, image in (("01", "01_1"), ("01", "01_2"), ("11", "11_1")):
        png(root / f"Slide_{slide}" / f"{image}.png", RGB)
        png(root / f"GT_{slide}" / f"{image}.png", mask((2, 2)))
    competition = opened(root, layout="tnbc")
    assert split_and_group(competition) == {
        "01_1": ("train", "slide_01"), "01_2": ("train", "slide_01"), "11_1": ("train", "slide_11"),
    }  # fmt: skip
    assert competition.merged
    (root / "GT_01" / "01_2.png").unlink()
    with pytest.raises(DataError, match="GT_01: no labels for 01_2"):
        opened(root, layout="tnbc").check()


XML = """<Annotations><Annotation><Regions>{}</Regions></Annotation></Annotations>"""
REGION = "<Region Id='{}'><Vertices>{}</Vertices></Region>"


def aperio(*polygons: list[tuple[float, float]]) -> str:
    regions = (
        REGION.format(number, "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points))
        for number, points in enumerate(polygons, start=1)
    )
    return XML.format("".join(regions))


@pytest.fixture
def monuseg(tmp_path: Path) -> Path:
    root = tmp_path / "monuseg"
    square = [(2.0, 4.0), (6.0, 4.0), (6.0, 8.0), (2.0, 8.0)]
    inner = [(5.0, 7.0), (7.2, 7.0), (7.2, 9.0), (5.0, 9.0)]
    for folder, name in (("Train/Tissue Images", "TCGA-AR-A1AK-01Z-00-DX1"), ("TestData", "TCGA-2Z-A9J9-01A-01-TS1")):
        (root / folder).mkdir(parents=True)
        write_tiff(root / folder / f"{name}.tif", RGB, "interleaved")
    (root / "Train" / "Annotations").mkdir()
    text = aperio(square, inner, [(1.0, 1.0)])
    (root / "Train" / "Annotations" / "TCGA-AR-A1AK-01Z-00-DX1.xml").write_text(text)
    (root / "TestData" / "TCGA-2Z-A9J9-01A-01-TS1.xml").write_text(aperio(square))
    return root


def test_monuseg(monuseg: Path) -> None:
    competition = opened(monuseg, layout="monuseg")
    assert split_and_group(competition) == {
        "TCGA-2Z-A9J9-01A-01-TS1": ("test", "TCGA-2Z-A9J9"),
        "TCGA-AR-A1AK-01Z-00-DX1": ("train", "TCGA-AR-A1AK"),
    }
    assert competition.image("TCGA-AR-A1AK-01Z-00-DX1").shape == (20, 24, 3)
    labels = competition.labels("TCGA-AR-A1AK-01Z-00-DX1")
    assert labels is not None
    # The 5 × 5 square loses the 2 × 2 pixels that the smaller nucleus covers; the single click is no nucleus.
    assert np.bincount(labels.ravel()).tolist() == [480 - 30, 21, 9]
    assert labels[4, 2] == 1
    assert labels[9, 7] == 2
    assert not competition.merged


def test_monuseg_as_label_images(tmp_path: Path, png: Any, table: Any) -> None:
    root = tmp_path / "monuseg"
    for folder, name in (
        ("train", "TCGA-AR-A1AK-01Z-00-DX1"),
        ("train", "TCGA-AR-A1AK-02Z-00-DX1"),
        ("test", "TCGA-2Z-A9J9-01A-01-TS1"),
    ):
        png(root / folder / "images" / f"{name}.png", RGB)
        png(root / folder / "labels" / f"{name}.png", mask((2, 2)) // 255 * 3)
    competition = opened(root, layout="monuseg")
    assert split_and_group(competition) == {
        "TCGA-2Z-A9J9-01A-01-TS1": ("test", "TCGA-2Z-A9J9"),
        "TCGA-AR-A1AK-01Z-00-DX1": ("train", "TCGA-AR-A1AK"),
        "TCGA-AR-A1AK-02Z-00-DX1": ("train", "TCGA-AR-A1AK"),
    }
    labels = competition.labels("TCGA-2Z-A9J9-01A-01-TS1")
    assert labels is not None
    assert np.bincount(labels.ravel()).tolist() == [471, 0, 0, 9], "the file's own numbers"
    assert not competition.merged
    assert opened(root, layout="monuseg", merged=True).merged
    flat = root / "train"
    rows = [["id", "type"], *([path.stem, "kidney"] for path in sorted((flat / "images").iterdir()))]
    table(flat / "index.csv", rows)
    found = opened(flat, layout="monuseg").samples()
    assert {(sample.split, sample.group, sample.stratum) for sample in found} == {("train", "TCGA-AR-A1AK", "kidney")}
    (flat / "labels" / "TCGA-AR-A1AK-02Z-00-DX1.png").unlink()
    with pytest.raises(DataError, match="no labels for"):
        opened(root, layout="monuseg").check()


def test_monuseg_broken(monuseg: Path, png: Any) -> None:
    (monuseg / "TestData" / "TCGA-2Z-A9J9-01A-01-TS1.tif").unlink()
    png(monuseg / "TestData" / "TCGA-2Z-A9J9-01A-01-TS1.png", RGB)
    xml = monuseg / "TestData" / "TCGA-2Z-A9J9-01A-01-TS1.xml"
    xml.write_text(xml.read_text()[:50])
    with pytest.raises(DataError, match="not the XML of Aperio"):
        opened(monuseg, layout="monuseg").labels(xml.stem)
    xml.unlink()
    with pytest.raises(DataError, match=rf"has no {xml.stem}\.xml"):
        opened(monuseg, layout="monuseg").check()


@pytest.fixture
def glas(tmp_path: Path, table: Any) -> Path:
    root = tmp_path / "glas"
    root.mkdir()
    rows = [["name", "patient ID", " grade (GlaS)", " grade (Sirinukunwattana et al. 2015)"]]
    for name, patient in (("train_1", 5), ("testA_1", 6), ("testB_2", 5)):
        PIL.Image.fromarray(RGB).save(root / f"{name}.bmp")
        PIL.Image.fromarray((mask((3, 3)) // 255 + mask((9, 9)) // 255 * 2).astype(np.uint8)).save(
            root / f"{name}_anno.bmp"
        )
        rows.append([name, str(patient), " benign", " healthy"])
    table(root / "Grade.csv", rows)
    return root


def test_glas(glas: Path) -> None:
    competition = opened(glas, layout="glas")
    assert split_and_group(competition) == {
        "testA_1": ("testA", "6"), "testB_2": ("testB", "5"), "train_1": ("train", "5"),
    }  # fmt: skip
    assert competition.samples()[0].stratum == "benign"
    labels = competition.labels("train_1")
    assert labels is not None
    assert np.bincount(labels.ravel()).tolist() == [462, 9, 9]
    assert competition.submission_ids() == ["testA_1", "testB_2"]


def test_glas_broken(glas: Path, table: Any) -> None:
    (glas / "testA_1_anno.bmp").unlink()
    with pytest.raises(DataError, match=r"testA_1\.bmp has no testA_1_anno\.bmp"):
        opened(glas, layout="glas").check()
    (glas / "testA_1.bmp").unlink()
    table(glas / "Grade.csv", [["name", "patient ID"], ["train_1", "5"]])
    with pytest.raises(DataError, match=r"Grade\.csv: no row for testB_2"):
        opened(glas, layout="glas").check()


def test_nuclei_590(folder: Path, table: Any) -> None:
    rows = [["name", "part", "id"], ["xx", "train", "a"], ["yy", "test", "b"], ["zz", "train", "c"]]
    rows.append(["gone", "test", "q"])  # the full list names images that are not here
    table(folder / "nuclei_590.csv", rows)
    competition = opened(folder, layout="nuclei_590")
    assert {key: split for key, (split, _) in split_and_group(competition).items()} == {
        "a": "train", "b": "test", "c": "train",
    }  # fmt: skip
    assert competition.labels("b") is not None
    table(folder / "nuclei_590.csv", rows[:3])
    with pytest.raises(DataError, match="no row for image c"):
        opened(folder, layout="nuclei_590").check()
    (folder / "nuclei_590.csv").unlink()
    with pytest.raises(DataError, match=r"nuclei_590\.csv: no such file"):
        opened(folder, layout="nuclei_590").check()


@pytest.mark.parametrize("layout", ["tnbc", "kidney_he"])
def test_a_folder_of_another_layout(folder: Path, layout: str) -> None:
    with pytest.raises(DataError, match="no images of this layout; expected"):
        opened(folder, layout=layout).check()


def test_glomeruli(tmp_path: Path, png: Any) -> None:
    root = tmp_path / "kidneys"
    biopsies, patches = root / "glomeruli_biopsy", root / "kidney_primitives_ki"
    for name in ("7-PAS", "7-PASM"):
        png(biopsies / "images" / f"{name}.png", RGB)
        png(biopsies / "labels" / f"{name}.png", mask((1, 1)) // 255)
    (biopsies / "index.csv").write_text("id,group,stain\n7-PAS,7,PAS\n7-PASM,7,PASM\n")
    alone = opened(root, layout="glomeruli")
    assert {sample.sample_id: sample.stratum for sample in alone.samples()} == {"7-PAS": "PAS", "7-PASM": "PASM"}
    for name in ("tuft_1", "vessel_1"):
        png(patches / "images" / f"{name}.png", RGB)
        png(patches / "masks" / f"{name}.png", mask((4, 4)))
    (patches / "index.csv").write_text("id,structure,stain,group\ntuft_1,tuft,he,a\nvessel_1,vessel,he,b\n")
    # The patch of a vessel does not say where glomeruli are.
    competition = opened(root, layout="glomeruli")
    assert split_and_group(competition) == {"7-PAS": ("train", "7"), "7-PASM": ("train", "7"), "tuft_1": ("train", "a")}
    assert {sample.stratum for sample in competition.samples()} == {"PAS", "PASM", "patch_he"}
    labels = competition.labels("tuft_1")
    assert labels is not None
    # Four times as large, as the glomeruli of the fields are: a square of 3 pixels at (4, 4) is one of 12 at (16, 16).
    assert (labels.shape, labels.sum(), labels[16:28, 16:28].all()) == ((80, 96), 144, True)
    assert competition.image("tuft_1").shape == (80, 96, 3)
    assert {(s.height, s.width) for s in competition.samples()} == {(20, 24), (80, 96)}
    (patches / "masks" / "tuft_1.png").unlink()
    with pytest.raises(DataError, match="tuft_1 has a row"):
        opened(root, layout="glomeruli").check()


def test_what_macos_leaves_is_no_sample(monuseg: Path, tmp_path: Path, png: Any) -> None:
    before = split_and_group(opened(monuseg, layout="monuseg"))
    shutil.copytree(monuseg / "Train", monuseg / "__MACOSX" / "Train")
    for path in [*monuseg.rglob("*.tif"), *monuseg.rglob("*.xml")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert split_and_group(opened(monuseg, layout="monuseg")) == before
    root = tmp_path / ".hidden" / "monuseg"
    for part in ("", "__MACOSX/"):
        png(root / f"{part}images" / "x.png", RGB)
        png(root / f"{part}labels" / "x.png", mask((2, 2)))
    (root / "images" / "._x.png").write_bytes(b"\0\5\x16\7")
    assert set(split_and_group(opened(root, layout="monuseg"))) == {"x"}, "the place itself may be hidden"


def test_parts_of_nuclei_590_are_known_whatever_their_case(folder: Path, table: Any) -> None:
    rows = [["name", "part", "id"], ["xx", "Train", "a"], ["yy", " Test", "b"], ["zz", "TRAIN", "c"]]
    table(folder / "nuclei_590.csv", rows)
    found = split_and_group(opened(folder, layout="nuclei_590"))
    assert [split for split, _ in found.values()] == ["train", "test", "train"]


def test_masks_of_any_layout_are_marked_as_merged(tmp_path: Path, png: Any) -> None:
    root = tmp_path / "monuseg"
    for part, truth in (("train", "masks"), ("test", "labels")):
        png(root / part / "images" / f"{part}.png", RGB)
        png(root / part / truth / f"{part}.png", mask((2, 2), (9, 9)) // 255)
    assert opened(root, layout="monuseg").merged
    assert not opened(root, layout="monuseg", truth="mask").merged
    (root / "train" / "masks").rename(root / "train" / "labels")
    assert not opened(root, layout="monuseg").merged


def test_two_outlines_of_one_image_are_refused(monuseg: Path) -> None:
    name = "TCGA-AR-A1AK-01Z-00-DX1.xml"
    shutil.copy(monuseg / "Train" / "Annotations" / name, monuseg / "Train" / "Tissue Images" / name)
    with pytest.raises(DataError, match=rf"Annotations/{name} and .*Tissue Images/{name} both outline"):
        opened(monuseg, layout="monuseg").check()


def test_outlines_are_found_whatever_the_case_of_their_ending(monuseg: Path) -> None:
    before = split_and_group(opened(monuseg, layout="monuseg"))
    for path in list(monuseg.rglob("*.xml")):
        path.rename(path.with_suffix(".XML"))
    assert split_and_group(opened(monuseg, layout="monuseg")) == before


def test_what_gdal_leaves_beside_images_outlines_nothing(tmp_path: Path, png: Any) -> None:
    root = tmp_path / "monuseg"
    png(root / "images" / "A-1.png", RGB)
    png(root / "labels" / "A-1.png", mask((2, 2)) // 255)
    (root / "images" / "A-1.png.aux.xml").write_text("<PAMDataset/>")
    assert opened(root, layout="monuseg").labels("A-1") is not None


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("latest release", "train"), ("contest", "train"), ("Greatest", "train"), ("Train", "train"),
        ("MoNuSegTestData", "test"), ("Test", "test"), ("test_images", "test"), ("TESTDATA", "test"),
        ("MoNuSeg 2018/testing", "test"), ("monusegtestdata", "test"), ("Test14", "test"),
    ],
)  # fmt: skip
def test_the_word_test_makes_a_folder_of_monuseg_one_of_test_images(
    tmp_path: Path, png: Any, folder: str, split: str
) -> None:
    root = tmp_path / "monuseg"
    png(root / folder / "images" / "A-1.png", RGB)
    png(root / folder / "labels" / "A-1.png", mask((2, 2)) // 255)
    assert [sample.split for sample in opened(root, layout="monuseg").samples()] == [split]


def test_glas_table_that_does_not_fit(glas: Path, table: Any) -> None:
    rows = [["name", "patient ID", " grade (GlaS)"], ["train_1", "5", "benign"], ["testA_1", "6"]]
    table(glas / "Grade.csv", [*rows, ["testB_2", "5"], ["", "", ""]])
    samples = {sample.sample_id: sample for sample in opened(glas, layout="glas").samples()}
    assert (samples["testA_1"].group, samples["testA_1"].stratum) == ("6", "image"), "no grade"
    table(glas / "Grade.csv", [*rows, ["testB_2"]])
    with pytest.raises(DataError, match=r"Grade\.csv: the row of testB_2 has no 'patient ID'"):
        opened(glas, layout="glas").check()
    table(glas / "Grade.csv", [*rows, ["testB_2", "5"], ["train_1 ", "7"]])
    with pytest.raises(DataError, match=r"Grade\.csv: name 'train_1' is there twice"):
        opened(glas, layout="glas").check()
    table(glas / "Grade.csv", [*rows, ["testB_2", "5", "benign", "why, so"]])
    with pytest.raises(DataError, match=r"Grade\.csv: line 4: 4 values where the header has 3"):
        opened(glas, layout="glas").check()
    (glas / "Grade.csv").write_bytes("name,patient ID\ntrain_1,Müller\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"Grade\.csv: not text in UTF-8"):
        opened(glas, layout="glas").check()


def test_a_split_of_glas_is_known_whatever_its_case(glas: Path, table: Any) -> None:
    for name in ("Train_2", "testA_2"):
        shutil.copy(glas / "train_1.bmp", glas / f"{name}.bmp")
        shutil.copy(glas / "train_1_anno.bmp", glas / f"{name}_anno.bmp")
    names = ("train_1", "Train_2", "testA_1", "testA_2", "testB_2")
    table(glas / "Grade.csv", [["name", "patient ID"], *([name, "1"] for name in names)])
    found = split_and_group(opened(glas, layout="glas"))
    assert (found["Train_2"], found["testA_2"]) == (("train", "1"), ("testA", "1"))


def test_nuclei_590_table_that_does_not_fit(folder: Path, table: Any) -> None:
    rows = [["name", "part", "id"], ["xx", "train", "a"], ["yy", "test", "b"]]
    table(folder / "nuclei_590.csv", [*rows, ["zz", " ", "c"]])
    with pytest.raises(DataError, match=r"nuclei_590\.csv: the row of c has no 'part'"):
        opened(folder, layout="nuclei_590").check()
    table(folder / "nuclei_590.csv", [*rows, ["zz", "train", "c"], ["zz", "test", "c"]])
    with pytest.raises(DataError, match=r"nuclei_590\.csv: id 'c' is there twice"):
        opened(folder, layout="nuclei_590").check()
    shutil.copytree(folder / "labels", folder / "masks")
    shutil.rmtree(folder / "labels")
    table(folder / "nuclei_590.csv", [*rows, ["zz", "train", "c"]])
    assert opened(folder, layout="nuclei_590").merged


Tiny = Callable[[Path], None]


def draw_kidney(root: Path) -> None:
    for part in ("train", "test"):
        save(root / part / "data" / "1.png", RGB)
        save(root / part / "gts" / "1.png", mask((1, 1)))
    (root / "index.csv").write_text("id,group\ntrain_1,a\ntest_1,b\n")


def draw_tnbc(root: Path) -> None:
    save(root / "Slide_01" / "01_1.png", RGB)
    save(root / "GT_01" / "01_1.png", mask((1, 1)))


def draw_glas(root: Path) -> None:
    for name in ("train_1", "testA_1"):
        save(root / f"{name}.bmp", RGB)
        save(root / f"{name}_anno.bmp", mask((1, 1)) // 255)
    (root / "Grade.csv").write_text("name,patient ID\ntrain_1,1\ntestA_1,2\n")


def draw_glomeruli(root: Path) -> None:
    save(root / "glomeruli_biopsy" / "images" / "7.png", RGB)
    save(root / "glomeruli_biopsy" / "labels" / "7.png", mask((1, 1)) // 255)
    (root / "glomeruli_biopsy" / "index.csv").write_text("id,group,stain\n7,a,PAS\n")


def draw_custom(root: Path) -> None:
    for key in ("a", "b"):
        save(root / "images" / f"{key}.png", RGB)
        save(root / "labels" / f"{key}.png", mask((1, 1)) // 255)
    (root / "index.csv").write_text("id,group,split\na,p,train\nb,q,test\n")


def draw_590(root: Path) -> None:
    draw_custom(root)
    (root / "index.csv").unlink()
    (root / "nuclei_590.csv").write_text("name,part,id\nx,train,a\ny,test,b\n")


def draw_monuseg(root: Path) -> None:
    for part in ("Train", "MoNuSegTestData"):
        save(root / part / f"{part}.png", RGB)
        (root / part / f"{part}.xml").write_text(aperio([(2.0, 4.0), (6.0, 4.0), (6.0, 8.0)]))
    (root / "index.csv").write_text("id,group\nTrain,a\nMoNuSegTestData,b\n")


def save(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("layout", "draw", "wrapper"),
    [
        ("kidney_he", draw_kidney, "kidney"),
        ("tnbc", draw_tnbc, "TNBC_NucleiSegmentation"),
        ("glas", draw_glas, "Warwick QU Dataset (Released 2016_07_08)"),
        ("glomeruli", draw_glomeruli, "data/kidneys"),
        ("custom", draw_custom, "my test images"),
        ("nuclei_590", draw_590, "release"),
        ("monuseg", draw_monuseg, "latest release"),
    ],
)
def test_an_archive_with_a_folder_of_its_own_is_unpacked_and_used(
    tmp_path: Path, layout: str, draw: Tiny, wrapper: str
) -> None:
    plain, wrapped = tmp_path / "plain", tmp_path / "wrapped"
    draw(plain)
    draw(wrapped / wrapper)
    expected = opened(plain, layout=layout).samples()
    assert expected
    (wrapped / "README.txt").write_text("cite us")
    (wrapped / "set.zip").write_bytes(b"PK")
    for rest in ("__MACOSX", ".cache"):
        (wrapped / rest).mkdir()
    competition = opened(wrapped, layout=layout)
    assert competition.samples() == expected
    assert competition.labels(expected[0].sample_id) is not None
    # Which of two it is nobody can tell: they are asked for.
    if layout != "monuseg":
        (wrapped / "other").mkdir()
        with pytest.raises(DataError, match=r"wrapped.*competition\.options\.folder="):
            opened(wrapped, layout=layout).samples()


def test_a_folder_of_monuseg_that_is_named_test_stays_test(tmp_path: Path) -> None:
    draw_monuseg(tmp_path / "monuseg" / "MoNuSegTestData")
    found = opened(tmp_path / "monuseg", layout="monuseg").samples()
    assert {sample.split for sample in found} == {"test"}
