"""The export: what it holds, and that it makes the file of `submit` in a tree like Kaggle's, without a network."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from kaggle_tree import Machine, find_something

from histofold.cli import main
from histofold.kaggle import notebook, package, wheels
from histofold.offline.manifest import MARKER, Manifest

SMALL = [
    "model=unet",
    "model.width=4",
    "model.norm=batch",
    "train.crop=64",
    "train.batch=4",
    "train.samples_per_epoch=96",
    "train.ema=0",
    "optimizer.lr=0.02",
    "train.epochs=1",
    "train.workers=0",
    "train.validate_every=0",
    "train.precision=32-true",
    "train.accelerator=cpu",
    "train.loggers=[]",
    "predict.tta=none",
    "predict.device=cpu",
    "evaluate.workers=1",
    "evaluate.bootstrap=10",
    "evaluate.tune=false",
    "prepare.workers=1",
    "run=tiny",
    "name=tiny",
]
KERNEL = ["kernel.owner=tester", "kernel.wheels=[]", "kernel.device=cpu"]


class World:
    """Folders of one small trained ensemble, and the verbs on them."""

    def __init__(self, root: Path, competition: str) -> None:
        self.root, self.competition = root, competition

    def run(self, verb: str, *more: str) -> int:
        places = [f"paths.{name}={self.root / name}" for name in ("input", "prepared", "oof", "submissions")]
        return main(verb, [f"competition={self.competition}", *places, *SMALL, *KERNEL, *more])

    @property
    def submission(self) -> Path:
        return self.root / "submissions" / self.competition / "tiny"

    @property
    def kernel(self) -> Path:
        return self.submission / "kernel"


def made(root: Path, competition: str) -> World:
    world = World(root, competition)
    for verb, *more in (
        ["prepare"],
        ["train", "fold=0"],
        ["train", "fold=1"],
        ["evaluate", "runs=[tiny]", "folds=all"],
        ["predict"],
    ):
        assert world.run(verb, *more) == 0, verb
    find_something(world, "tiny")
    assert world.run("submit") == 0
    assert world.run("kernel") == 0
    return world


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made(tmp_path_factory.mktemp("nuclei"), "demo_nuclei")


@pytest.fixture(scope="module")
def kidney(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made(tmp_path_factory.mktemp("kidney"), "demo_kidney")


@pytest.mark.slow
def test_slides_give_the_file_of_submit(kidney: World, machine: Any) -> None:
    proves_equal(kidney, machine(kidney))


def test_instances_give_the_file_of_submit(nuclei: World, machine: Any) -> None:
    proves_equal(nuclei, machine(nuclei))


def proves_equal(world: World, there: Machine) -> None:
    done = there.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (there.working / "submission.csv").read_bytes() == (world.submission / "submission.csv").read_bytes()
    rows = (there.working / "submission.csv").read_text().splitlines()[1:]
    assert sum(len(row.split(",")[1]) for row in rows) > 1000
    assert "!!!" not in done.stderr
    assert [path.name for path in there.working.iterdir()] == ["submission.csv"]
    assert list(there.scratch.rglob("*.tif")) == []


@pytest.mark.slow
def test_a_bad_sample_costs_its_own_row_only(nuclei: World, machine: Any) -> None:
    there = machine(nuclei)
    rows = (nuclei.submission / "submission.csv").read_text().splitlines()
    bad = rows[1].split(",")[0]
    (path,) = (there.input / "demo_nuclei" / "stage1_test" / bad / "images").glob("*.png")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = there.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"!!! histofold: {bad}: an EMPTY ROW" in done.stderr
    found = (there.working / "submission.csv").read_text().splitlines()
    assert found[1] == f"{bad},"
    assert found[2:] == [row for row in rows[1:] if not row.startswith(bad)]


LOOK = """
import re
sys.path.insert(0, str(next(Path(os.environ['HISTOFOLD_INPUT']).rglob('package'))))
sys.dont_write_bytecode = True
os.environ['NUMBA_CACHE_DIR'] = tempfile.mkdtemp(prefix='histofold-numba-')
import histofold.offline.run as offline
real, seen = offline.predict_sample, []

def disk():
    found = []
    for place in ('TMPDIR', 'HISTOFOLD_WORKING'):
        for path in Path(os.environ[place]).rglob('*'):
            if path.is_file() and not re.search('/histofold-(numba|packages)-', str(path)):
                found.append(path.name)
    return found

def watched(source, members, weights, settings, path, **more):
    before = disk()
    real(source, members, weights, settings, path, **more)
    seen.append([before, disk() == [path.name] and path.stat().st_size])
    if len(seen) == 1:
        raise RuntimeError('broken after its prediction was written')

offline.predict_sample = watched
"""
"""A cell that looks at the disk before and after each sample's prediction is written, and lets the first one fail."""


def frees_the_disk(world: World, there: Machine) -> None:
    there.cells[-1:] = [LOOK, there.cells[-1], "print('SEEN', json.dumps([seen, disk()]))"]
    done = there.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("an EMPTY ROW: RuntimeError: broken after") == 1
    seen, left = json.loads(done.stdout.split("SEEN ")[1])
    samples = (world.submission / "submission.csv").read_text().splitlines()[1:]
    assert len(seen) == len({row.split(",")[0] for row in samples}) > 1
    # Nothing of a sample is there when the next one begins, not even of one that failed; then one file alone is.
    assert [before for before, _ in seen] == [[]] * len(seen)
    assert all(size > 0 for _, size in seen)
    assert left == ["submission.csv"]


def test_each_images_disk_is_freed_before_the_next(nuclei: World, machine: Any) -> None:
    frees_the_disk(nuclei, machine(nuclei))


@pytest.mark.slow
def test_each_slides_disk_is_freed_before_the_next(kidney: World, machine: Any) -> None:
    frees_the_disk(kidney, machine(kidney))


def test_a_notebook_refuses_another_version_of_its_dataset(nuclei: World, machine: Any) -> None:
    there = machine(nuclei)
    there.cells[-1] = there.cells[-1].replace(Manifest.read(there.dataset).stamp, "0" * 16)
    done = there.run()
    assert done.returncode != 0
    assert "another version of tester/histofold-demo-nuclei-tiny-files" in done.stderr


def test_what_the_export_holds(nuclei: World) -> None:
    files = {str(path.relative_to(nuclei.kernel)) for path in nuclei.kernel.rglob("*") if path.is_file()}
    code = {name for name in files if name.startswith("dataset/package/")}
    assert files - code == {
        "notebook.ipynb",
        "kernel-metadata.json",
        "dataset/dataset-metadata.json",
        f"dataset/{MARKER}",
        "dataset/models/demo_nuclei/ensembles/tiny.json",
        "dataset/models/demo_nuclei/tiny/fold0/model.ckpt",
        "dataset/models/demo_nuclei/tiny/fold1/model.ckpt",
    }
    folders = {Path(name).parts[3] for name in code if len(Path(name).parts) > 4}
    assert folders == {
        "competitions", "inference", "instances", "kaggle", "models", "offline", "rle", "slides", "submission",
        "targets", "tiles",
    }  # fmt: skip
    assert {Path(name).name for name in code if "/kaggle/" in name} == {"__init__.py", "csv.py", "validate.py"}


def test_metadata_keeps_the_rules(nuclei: World) -> None:
    kernel = json.loads((nuclei.kernel / "kernel-metadata.json").read_text())
    dataset = json.loads((nuclei.kernel / "dataset" / "dataset-metadata.json").read_text())
    assert (kernel["is_private"], kernel["enable_internet"], kernel["enable_gpu"]) == (True, False, True)
    assert kernel["id"] == "tester/" + kernel["title"].replace(" ", "-")
    assert kernel["dataset_sources"] == [dataset["id"]] == ["tester/histofold-demo-nuclei-tiny-files"]
    assert (nuclei.kernel / kernel["code_file"]).is_file()
    content = json.loads((nuclei.kernel / kernel["code_file"]).read_text())
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert 6 <= len(dataset["title"]) <= 50


def test_competition_is_a_source(tmp_path: Path) -> None:
    content = notebook.write_kernel_metadata(tmp_path, "me", "some title", "hubmap-kidney-segmentation", True)
    assert content["competition_sources"] == ["hubmap-kidney-segmentation"]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("histofold hubmap_kidney Best+smp.v2", "histofold hubmap kidney best smp v2"),
        ("  a--b__c   d ", "a b c d"),
    ],
)
def test_titles(text: str, title: str) -> None:
    assert notebook.title_of(text) == title


def test_long_titles_are_shortened_and_stay_different() -> None:
    first, second = (notebook.title_of("histofold " + "x" * 60 + end) for end in "ab")
    assert first != second
    assert len(first) <= 44


def test_too_short_a_title_is_refused() -> None:
    with pytest.raises(Exception, match="at least 6"):
        notebook.title_of("a")


def test_an_owner_is_needed(nuclei: World, no_credentials: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nuclei.run("kernel", "kernel.owner=null") == 2
    assert "kernel.owner=null: a notebook belongs to somebody" in capsys.readouterr().err


def test_too_large_is_refused_and_the_old_export_stays(nuclei: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = (nuclei.kernel / "dataset" / MARKER).read_bytes()
    assert nuclei.run("kernel", "kernel.limit=10k") == 1
    assert "kernel.limit" in capsys.readouterr().err
    assert (nuclei.kernel / "dataset" / MARKER).read_bytes() == before
    assert [path.name for path in nuclei.submission.iterdir() if path.name.startswith(".")] == []


def test_other_views_than_those_of_predict_are_told(nuclei: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert nuclei.run("kernel", "predict.tta=flips") == 0
    assert "predict.tta=flips in the notebook; `predict` was run here with predict.tta=none" in capsys.readouterr().out
    assert nuclei.run("kernel") == 0


def test_no_competition_of_kaggles_cannot_be_pushed(nuclei: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert nuclei.run("kernel", "kernel.push=true") == 2
    assert "demo_nuclei is no competition of Kaggle's" in capsys.readouterr().err


def test_modules_are_followed_into_functions_and_registries_but_not_into_type_checks() -> None:
    found = package.modules_of(["histofold.offline.run"])
    assert {"histofold.models.zoo", "histofold.models.unet", "histofold.competitions.hubmap"} <= set(found)
    assert not {name for name in found if name.startswith(("histofold.sample", "histofold.metrics", "histofold.train"))}


def test_wheels_that_members_need() -> None:
    assert "segmentation-models-pytorch" not in wheels.needed(["unet"])
    assert wheels.needed(["smp", "unet"])[-1] == "segmentation-models-pytorch"


def test_a_wheel_that_cannot_be_fetched_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Exception, match=r"rasterio: pip could not fetch.*kernel\.wheels=\[\]"):
        wheels.gather(["rasterio"], tmp_path, ["3.11"])


def test_a_wheel_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such file"):
        wheels.gather([str(tmp_path / "a-1.whl")], tmp_path, ["3.11"])


def test_wheels_are_installed_where_the_image_lacks_them(nuclei: World, machine: Any, tmp_path: Path) -> None:
    wheel = tmp_path / "histofold_probe-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("histofold_probe.py", "ANSWER = 42\n")
        about = "histofold_probe-1.0.dist-info/"
        file.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: histofold-probe\nVersion: 1.0\n")
        file.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(about + "RECORD", "")
    assert nuclei.run("kernel", f"kernel.wheels=[{wheel},{numpy_wheel(tmp_path)}]") == 0
    there = machine(nuclei)
    given = there.cells[-1].removeprefix("start(")
    there.cells[-1] = f"export = find_export(Path(os.environ['HISTOFOLD_INPUT']), {given}"
    there.cells.append("install(export, tempfile.mkdtemp())\nimport histofold_probe\nprint(histofold_probe.ANSWER)")
    done = there.run()
    assert nuclei.run("kernel") == 0
    assert done.returncode == 0, done.stderr
    # numpy is there already, so its wheel (which is none) is not touched.
    assert done.stdout.split("\n")[:2] == ["installing histofold-probe", "42"]


def numpy_wheel(folder: Path) -> Path:
    path = folder / "numpy-0.1-py3-none-any.whl"
    path.write_bytes(b"")
    return path


@pytest.mark.slow
def test_short_time_means_fewer_views(nuclei: World, machine: Any) -> None:
    assert nuclei.run("kernel", "predict.tta=flips") == 0
    there = machine(nuclei)
    assert nuclei.run("kernel") == 0
    # Four views would take for ever, one takes nothing; `submit` was made with one.
    there.cells.insert(
        -1,
        "sys.path.insert(0, str(next(Path(os.environ['HISTOFOLD_INPUT']).rglob('package'))))\n"
        "sys.dont_write_bytecode = True\n"
        "from histofold.offline.speed import Speed\n"
        "Speed.seconds = lambda self, sample, views: {'flips': 1e9, 'none': 1e-9}[views]",
    )
    done = there.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("the time is short, predict.tta=none instead of flips") == 8
    assert (there.working / "submission.csv").read_bytes() == (nuclei.submission / "submission.csv").read_bytes()
