"""The export: what it holds, and that it makes the file of `submit` in a tree like Kaggle's, without a network."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kaggle_tree import Machine, find_something

from histofold.cli import main
from histofold.competitions.base import Place
from histofold.errors import ConfigError, DataError
from histofold.files import HOST, TEMPORARY
from histofold.kaggle import export, notebook, package, wheels
from histofold.offline import run as offline
from histofold.offline import start
from histofold.offline.manifest import MARKER, Manifest, Wheel

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


def made(root: Path, competition: str, prepared_demo: Callable[[str, Path], None]) -> World:
    world = World(root, competition)
    prepared_demo(competition, root)
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
def nuclei(tmp_path_factory: pytest.TempPathFactory, prepared_demo: Callable[[str, Path], None]) -> World:
    return made(tmp_path_factory.mktemp("nuclei"), "demo_nuclei", prepared_demo)


@pytest.fixture(scope="module")
def kidney(tmp_path_factory: pytest.TempPathFactory, prepared_demo: Callable[[str, Path], None]) -> World:
    return made(tmp_path_factory.mktemp("kidney"), "demo_kidney", prepared_demo)


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


def test_names_that_a_title_cannot_hold_stay_different() -> None:
    names = ["a_b", "a-b", "A B", "a b", "niere_ü", "niere_ö", "смп", "モデル", "x" * 60, "x" * 61]
    titles = {notebook.title_for("dsb2018", name) for name in names}
    assert len(titles) == len(names)
    assert max(map(len, titles)) <= 44
    assert notebook.title_for("dsb2018", "unet") == "histofold dsb2018 unet"


def test_too_short_a_title_is_refused() -> None:
    with pytest.raises(Exception, match="at least 6"):
        notebook.title_of("a")


def test_a_folder_with_a_space_can_be_pasted(nuclei: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(nuclei.submission, tmp_path / "my sent" / "demo_nuclei" / "tiny")
    assert nuclei.run("kernel", f"paths.submissions={tmp_path}/my sent") == 0
    lines = capsys.readouterr().out.splitlines()
    folder = tmp_path / "my sent" / "demo_nuclei" / "tiny" / "kernel"
    commands = [shlex.split(line) for line in lines if "kaggle " in line]
    assert {Path(words[0]).name for words in commands} == {"kaggle"}
    assert commands[0][0] == str(Path(sys.executable).with_name("kaggle"))
    dataset = ["-r", "zip", "-p", str(folder / "dataset")]
    assert [words[1:] for words in commands] == [
        ["datasets", "create", *dataset],
        ["datasets", "version", "-m", "new", *dataset],
        ["kernels", "push", "-p", str(folder)],
    ]


def test_a_code_competition_is_sent_a_notebook_and_no_file(
    nuclei: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code = ["competition.slug=hidden-cells", "competition.options.folder=demo_nuclei"]
    assert nuclei.run("submit", *code, "submit.message=it's mine") == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert Path(command[0]).name == "kaggle"
    assert command[1:4] == ["competitions", "submit", "hidden-cells"]
    assert command[-2:] == ["-m", "it's mine"]
    code += ["competition.code=true"]
    assert nuclei.run("submit", *code) == 0
    output = capsys.readouterr().out
    assert "kaggle competitions submit" not in output
    words = shlex.split(output.splitlines()[-1])
    assert (words[:2], words[-1]) == (["./run.sh", "kernel"], "kernel.push=true")
    assert {"competition=demo_nuclei", "name=tiny", *code} <= set(words)
    assert nuclei.run("submit", *code, "submit.send=true") == 2
    error = capsys.readouterr().err
    assert "is a code competition, which takes a notebook and no CSV" in error
    assert "./run.sh kernel competition=demo_nuclei" in error
    assert "kernel.push=true`" in error
    assert "submit.send=true " not in error.split("`")[1]


def test_an_owner_is_needed(nuclei: World, no_credentials: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nuclei.run("kernel", "kernel.owner=null") == 2
    assert "kernel.owner=null: a notebook belongs to somebody" in capsys.readouterr().err


def test_too_large_is_refused_and_the_old_export_stays(nuclei: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = (nuclei.kernel / "dataset" / MARKER).read_bytes()
    assert nuclei.run("kernel", "kernel.limit=10k") == 1
    assert "kernel.limit" in capsys.readouterr().err
    assert (nuclei.kernel / "dataset" / MARKER).read_bytes() == before
    assert [path.name for path in nuclei.submission.iterdir() if path.name.startswith(".")] == []


def test_what_a_killed_process_left_of_an_export_goes(nuclei: World) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left = nuclei.submission / f".kernel.{HOST}-{process.pid}{TEMPORARY}"
    (left / "dataset" / "models").mkdir(parents=True)
    (left / "dataset" / "models" / "model.ckpt").write_bytes(b"half")
    for path in sorted(left.rglob("*"), reverse=True):
        os.utime(path, (0, 0))
    os.utime(left, (0, 0))
    assert nuclei.run("kernel") == 0
    assert [path.name for path in nuclei.submission.iterdir() if path.name.startswith(".")] == []


def test_other_views_than_those_of_predict_are_told(nuclei: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert nuclei.run("kernel", "predict.tta=flips") == 0
    assert "predict.tta=flips in the notebook; `predict` was run here with predict.tta=none" in capsys.readouterr().out
    assert nuclei.run("kernel") == 0


PUSHED = ["competition.slug=hidden-cells", "competition.options.folder=demo_nuclei", "kernel.push=true"]


def test_another_cleanup_than_that_of_submit_is_told(nuclei: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert nuclei.run("kernel", "submit.min_area=7") == 0
    expected = "submit.min_area=7 in the notebook; `submit` was run here with submit.min_area=0"
    assert expected in capsys.readouterr().out
    assert nuclei.run("kernel") == 0


def test_a_push_with_settings_that_nobody_asked_for_is_refused(
    nuclei: World, no_credentials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(nuclei.submission, tmp_path / "demo_nuclei" / "tiny")
    assert nuclei.run("submit", "submit.min_area=7", f"paths.submissions={tmp_path}") == 0
    marker = tmp_path / "demo_nuclei" / "tiny" / "kernel" / "dataset" / MARKER
    before = marker.read_bytes()
    capsys.readouterr()
    assert nuclei.run("kernel", *PUSHED, f"paths.submissions={tmp_path}") == 2
    error = capsys.readouterr().err
    assert "submit.min_area=0 in the notebook; `submit` was run here with submit.min_area=7; nothing was sent" in error
    assert marker.read_bytes() == before
    offers = [shlex.split(command) for command in error.split("`")[3::2]]
    assert [words[-1] for words in offers] == ["submit.min_area=7", "submit.min_area=0"]
    for words in offers:
        # As it stands it goes on, to where credentials are looked for.
        assert main(words[1], words[2:]) == 1
        assert "no Kaggle credentials" in capsys.readouterr().err


def test_a_message_makes_no_other_export(nuclei: World) -> None:
    stamps = []
    for more in ([], ["submit.message=other", "submit.send=true", "kernel.message=third"], ["submit.max_hole=3"]):
        assert nuclei.run("kernel", *more) == 0
        stamps.append(Manifest.read(nuclei.kernel / "dataset").stamp)
    assert stamps[0] == stamps[1] != stamps[2]
    assert nuclei.run("kernel") == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"folder": "data", "sample": "nuclei", "test": "stage1"}, {"test": "stage1"}),
        ({"test": "{root}/later"}, {"test": "{folder}/later"}),
        ({"test": "data/later", "images": "data/images"}, {"test": "{folder}/later", "images": "data/images"}),
        ({"index": "{root}/index.csv", "derive": True}, {"index": "{folder}/index.csv", "derive": True}),
    ],
)
def test_options_hold_in_a_notebook(options: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    place = Place("own", None, tmp_path / "data", tmp_path)
    given = {key: value.replace("{root}", str(place.root)) if key != "derive" else value
             for key, value in options.items()}  # fmt: skip
    assert export.options_there(place, given) == expected


@pytest.mark.parametrize("value", ["/elsewhere/test", "{root}/../other", "~/test", "../test"])
def test_a_place_of_this_machine_is_refused(value: str, tmp_path: Path) -> None:
    place = Place("own", None, tmp_path / "data", tmp_path)
    with pytest.raises(ConfigError, match=r"competition\.options\.test=.*a place of this machine.*=null"):
        export.options_there(place, {"test": value.replace("{root}", str(place.root))})


def test_data_is_not_looked_for_in_an_export(tmp_path: Path) -> None:
    options = {"images": "images", "test": "{folder}/later"}
    manifest = Manifest("me/x", "feed", "tiny", {"name": "own", "adapter": "folders", "slug": None, "options": options},
                        {}, 0, 0, 9.0)  # fmt: skip
    (tmp_path / "me-x" / "models" / "own").mkdir(parents=True)
    manifest.write(tmp_path / "me-x")
    with pytest.raises(DataError, match="no folder own in it; add the competition's data"):
        offline.open_competition(manifest, tmp_path)
    data = tmp_path / "zdata" / "someone" / "own"
    data.mkdir(parents=True)
    found = offline.open_competition(manifest, tmp_path)
    assert (found.place.root, found.settings["test"]) == (data, str(data / "later"))


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
        wheels.gather(["rasterio"], tmp_path, ["3.11"], asked=True)


def test_a_wheel_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such file"):
        wheels.gather([str(tmp_path / "a-1.whl")], tmp_path, ["3.11"], asked=True)


def wheel_of(folder: Path, name: str, version: str) -> Path:
    """A wheel of a module that knows its own version."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info/"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        file.writestr(about + "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(about + "RECORD", "")
    return path


def test_wheels_are_installed_and_come_before_what_the_image_has(nuclei: World, machine: Any, tmp_path: Path) -> None:
    wheels_given = [wheel_of(tmp_path, "histofold_probe", "1.0"), wheel_of(tmp_path, "tqdm", "0.1")]
    assert nuclei.run("kernel", f"kernel.wheels=[{','.join(map(str, wheels_given))}]") == 0
    there = machine(nuclei)
    assert nuclei.run("kernel") == 0
    given = there.cells[-1].removeprefix("start(")
    there.cells[-1] = f"export = find_export(Path(os.environ['HISTOFOLD_INPUT']), {given}"
    there.cells.append("install(export, tempfile.mkdtemp())\nimport histofold_probe, tqdm")
    there.cells.append("print(histofold_probe.VERSION, tqdm.VERSION)")
    done = there.run()
    assert done.returncode == 0, done.stderr
    # The image has a tqdm, and a newer one; but this one was asked for.
    assert done.stdout.split("\n")[:2] == ["installing histofold-probe", "installing tqdm"]
    assert done.stdout.split("\n")[2] == "1.0 0.1"


@pytest.mark.parametrize(
    ("have", "brought", "asked", "tried", "fits"),
    [
        (None, "1.4.4", False, True, True),
        ("1.3.9", "1.4.4", False, True, True),
        ("1.10", "1.9.1", False, False, True),
        ("1.4.0", "1.4", False, False, True),
        ("2.0", "1.4.4", True, True, True),
        ("1.3.9", "1.4.4", False, True, False),
        (None, "1.4.4", False, True, False),
        ("1.3.9", "1.4.4", True, True, False),
    ],
)
def test_which_wheels_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    have: str | None, brought: str, asked: bool, tried: bool, fits: bool,
) -> None:  # fmt: skip
    def version(name: str) -> str:
        if have is None:
            raise start.metadata.PackageNotFoundError(name)
        return have

    commands: list[list[str]] = []
    monkeypatch.setattr(start.metadata, "version", version)

    def run(command: list[str], check: bool) -> SimpleNamespace:
        assert not check
        commands.append(command)
        return SimpleNamespace(returncode=0 if fits else 1)

    monkeypatch.setattr(start.subprocess, "run", run)
    monkeypatch.setattr(sys, "path", ["first"])
    (tmp_path / MARKER).write_text(json.dumps({"wheels": [asdict(Wheel("rasterio", brought, asked))]}))
    if fits or (have and not asked):
        start.install(tmp_path, "scratch")
        assert sys.path == (["scratch", "first"] if tried and fits else ["first"])
        assert ("!!! rasterio: stays at the image's 1.3.9" in capsys.readouterr().out) == (not fits)
    else:
        with pytest.raises(SystemExit, match="rasterio: its wheel cannot be installed"):
            start.install(tmp_path, "scratch")
    assert [command[-1] for command in commands] == ["rasterio"] * tried


def test_wheels_of_several_pythons_count_as_their_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"3.11": "1.9", "3.12": "1.10"}
    monkeypatch.setattr(wheels, "_fetch", lambda item, folder, python: wheel_of(folder, "A_b.c", versions[python]))
    found = wheels.gather(["a-B.C>=1.2,<2"], tmp_path / "wheels", ["3.12", "3.11"], asked=False)
    assert found == [Wheel("a-b-c", "1.9", False)]


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
        "os.environ['NUMBA_CACHE_DIR'] = tempfile.mkdtemp()\n"
        "from histofold.offline.speed import Speed\n"
        "Speed.seconds = lambda self, sample, views: {'flips': 1e9, 'none': 1e-9}[views]",
    )
    done = there.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("the time is short, predict.tta=none instead of flips") == 8
    assert (there.working / "submission.csv").read_bytes() == (nuclei.submission / "submission.csv").read_bytes()
