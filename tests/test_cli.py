"""The command line: precedence of choices, and one clear line with the right exit code for everything wrong."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from histofold import cli, commands, compose, given, multirun
from histofold.config import Config
from histofold.errors import ConfigError, DataError
from histofold.workspace import Workspace

ROOT = Path(__file__).parents[1]

WORDS = """# @package _global_
defaults:
  - override /target: border
competition:
  name: words
  adapter: folders
train:
  crop: 96
  epochs: 7
"""

TRIAL = """# @package _global_
defaults:
  - override /target: distance
  - override /model: unet
train:
  epochs: 3
"""


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's configuration with a competition and an experiment added."""
    folder = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", folder)
    (folder / "competition" / "words.yaml").write_text(WORDS)
    (folder / "experiment").mkdir(exist_ok=True)
    (folder / "experiment" / "trial.yaml").write_text(TRIAL)
    monkeypatch.setattr(multirun, "CONFIGS", folder)
    monkeypatch.setattr(compose, "CONFIGS", folder)
    original = compose.compose
    monkeypatch.setattr(compose, "compose", lambda overrides, configs=folder: original(overrides, configs))
    return folder


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """A verb named `probe` that remembers its configurations; gives what it remembers."""
    seen: list[Config] = []

    def run(config: Config) -> None:
        if config.fold == 7:
            raise ConfigError("fold=7: folds.csv has folds 0 to 4")
        if config.fold == 8:
            raise DataError("slide.tiff: truncated")
        if config.fold == 9:
            raise KeyboardInterrupt
        seen.append(config)

    module = types.ModuleType("histofold_probe")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "histofold_probe", module)
    monkeypatch.setitem(commands.COMMANDS, "probe", commands.Command("histofold_probe:run", "for tests", "go on"))
    return seen


def load(overrides: list[str], configs: Path) -> Config:
    return compose.load(compose.compose(["competition=words", *overrides], configs))


def test_every_default_is_in_the_schema(configs: Path) -> None:
    config = load([], configs)
    assert config.train.batch == 8
    assert config.predict.step == 0.75
    assert config.prepare.grids == ["grid"]
    assert config.root == str(ROOT)
    assert config.model["name"] == "smp", "learns at the default rate, in a short run too"


def test_competition_wins_over_defaults(configs: Path) -> None:
    config = load([], configs)
    assert (config.train.crop, config.train.epochs, config.target["name"]) == (96, 7, "border")


def test_experiment_wins_over_competition(configs: Path) -> None:
    config = load(["experiment=trial"], configs)
    assert (config.train.crop, config.train.epochs) == (96, 3)
    assert (config.target["name"], config.model["name"]) == ("distance", "unet")


@pytest.mark.parametrize("extra", [[], ["experiment=trial"]])
def test_command_line_wins_over_both(configs: Path, extra: list[str]) -> None:
    config = load([*extra, "target=ternary", "train.epochs=1", "train.crop=32", "model=fullnet"], configs)
    assert (config.train.crop, config.train.epochs) == (32, 1)
    assert (config.target["name"], config.model["name"]) == ("ternary", "fullnet")


def test_own_places_are_absolute(configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(["images=pictures", f"paths.oof={tmp_path}/runs"], configs)
    assert config.images == str(tmp_path / "pictures")
    assert config.path("oof") == tmp_path / "runs"
    assert config.path("submissions") == ROOT / "submissions"


WRONG = [
    ("fol=3", "fol: unknown setting; did you mean 'fold'?"),
    ("train.epoch=3", "train.epoch: unknown setting; did you mean 'train.epochs'?"),
    ("batch=3", "batch: unknown setting; did you mean "),
    ("+zzz=1", "zzz: unknown setting"),
    ("modle=unet", "modle: unknown setting; did you mean 'model'?"),
    ("fold=abc", "fold=abc: expected a whole number, found str 'abc'"),
    ("fold=1.5", "fold=1.5: expected a whole number, found float 1.5"),
    ("fold=null", "fold=None: expected a whole number, found NoneType None"),
    ("fold=-1", "fold=-1: out of range; expected at least 0"),
    ("predict.step=1.5", "predict.step=1.5: out of range; expected from 0.05 to 1"),
    ("train.compile=perhaps", "train.compile=perhaps: expected true or false"),
    ("prepare.grids=grid", "prepare.grids=grid: expected a list such as [a,b]"),
    ("prepare.grids=[grid,middle]", "prepare.grids=middle: expected one of grid, shifted, centred"),
    ("resume=yes", "resume=yes: expected one of auto, never"),
    ("predict.tta=flip", "predict.tta=flip: expected one of none, flips, dihedral; did you mean 'flips'?"),
    ("shard=4/4", "shard=4/4: expected i/n"),
    ("run=a/b", "run=a/b: expected a name for a folder"),
    ("run=Ensembles", "run=Ensembles: the ensembles' own folder is called so; choose another run="),
    ("images=", "images=: empty, as of a shell variable that is not set; expected a path, or images=null for none"),
    ("file=", "file=: empty, as of a shell variable that is not set; expected a path, or file=null for none"),
    ("train.start=", "train.start=: empty, as of a shell variable"),
    ("paths.oof=", "paths.oof=: empty, as of a shell variable that is not set; expected a path\n"),
    ("loss.bce=much", "loss.bce=much: expected a number"),
    ("model=unett", "model=unett: unknown model; did you mean 'unet'?"),
    ("competition=nowhere", "competition=nowhere: unknown competition; expected one of: "),
    ("experiment=none_such", "experiment=none_such: unknown experiment"),
    ("fold=0,1", "fold=0,1: several values; -m before it runs one job for each\n"),
    ("runs=a,b", "runs=a,b: several values; -m before it runs one job for each, 'runs=[a,b]' means a list\n"),
    ("fold", "fold: not understood; expected key=value"),
    ("name=a(b", "name=a(b: not understood; expected key=value"),
    ("hydra/launcher=nothing", "hydra/launcher=nothing: has an effect on several jobs only"),
    ("~fold", "fold: missing"),
    ("~train.crop", "train.crop: missing"),
    ("predict.device=gpu", "predict.device=gpu: expected auto, cpu, cuda or cuda:N"),
    ("kernel.device=gpu", "kernel.device=gpu: expected auto, cpu, cuda or cuda:N"),
    ("kernel.device=cuda:", "kernel.device=cuda:: expected auto, cpu, cuda or cuda:N"),
    ("evaluate.per_stratum=some", "evaluate.per_stratum=some: expected one of auto, always, never"),
    ("evaluate.second_level=yes", "evaluate.second_level=yes: expected one of off, auto, on"),
    ("train=3", "train=3: expected a group of settings"),
    ("--fold=3", "--fold=3: unknown option"),
]


@pytest.mark.parametrize(("override", "expected"), WRONG, ids=[override for override, _ in WRONG])
def test_what_is_wrong_is_one_line_and_code_2(
    configs: Path, probe: list[Config], capsys: pytest.CaptureFixture[str], override: str, expected: str
) -> None:
    assert cli.main("probe", ["competition=words", override]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"histofold: {expected}")
    assert output.err.count("\n") == 1
    assert probe == []


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices(configs: Path, device: str) -> None:
    config = load([f"predict.device={device}", f"kernel.device={device}"], configs)
    assert (config.predict.device, config.kernel.device) == (device, device)


@pytest.mark.parametrize("name", ["a=b.csv", "folder (1)", "x's", "a(b", "007", "{x}: [y] #1", "ü", "'quoted'"])
def test_paths_need_no_quotes_of_their_own(configs: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name.strip("'")
    typed = f"'{path}'" if name == "'quoted'" else str(path)
    keys = ("images", "file", "paths.oof", "train.start", "competition.options.folder")
    config = load(["+competition.options.folder=null", *(f"{key}={typed}" for key in keys)], configs)
    found = (config.images, config.file, config.paths.oof, config.train.start, config.competition.options["folder"])
    assert found == (str(path),) * 5


@pytest.mark.parametrize("name", ["a,b", "slides of May, 3"])
def test_a_path_with_a_comma_is_typed_as_the_message_says(configs: Path, tmp_path: Path, name: str) -> None:
    keys = ("images", "paths.oof", "competition.options.folder")
    typed = []
    for key in keys:
        with pytest.raises(ConfigError, match=f"several values.* for each, .*{key}=.* means one text") as caught:
            load(["+competition.options.folder=null", f"{key}={tmp_path / name}"], configs)
        typed += shlex.split(str(caught.value).split("one job for each, ")[1].removesuffix(" means one text"))
    config = load(["+competition.options.folder=null", *typed], configs)
    assert (config.images, config.paths.oof, config.competition.options["folder"]) == (str(tmp_path / name),) * 3


def test_paths_are_swept_over_and_may_be_null(configs: Path, probe: list[Config], tmp_path: Path) -> None:
    argv = ["-m", "competition=words", "file=null", "images=one,two", f"paths.oof={tmp_path}/o=(1"]
    assert cli.main("probe", argv) == 0
    assert [Path(str(config.images)).name for config in probe] == ["one", "two"]
    assert {(config.file, config.paths.oof) for config in probe} == {(None, f"{tmp_path}/o=(1")}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("[rasterio>=1.3]", ["rasterio>=1.3"]),
        ("[rasterio>=1.3,<2,/a b/c=1.whl]", ["rasterio>=1.3,<2", "/a b/c=1.whl"]),
        ("['a>=1',b]", ["a>=1", "b"]),
        ("[a,b==1.0]", ["a", "b==1.0"]),
        ("[]", []),
        ("auto", "auto"),
    ],
)
def test_requirements_need_no_quotes_of_their_own(configs: Path, typed: str, expected: list[str] | str) -> None:
    assert load([f"kernel.wheels={typed}"], configs).kernel.wheels == expected


def test_weights_to_start_from_count_from_the_current_folder(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root" / "oof").mkdir(parents=True)
    for path in ("one.ckpt", "root/oof/two.ckpt"):
        (tmp_path / path).write_text("")

    def start(typed: str) -> str | None:
        return load([f"root={tmp_path}/root", f"train.start={typed}"], configs).train.start

    monkeypatch.chdir(tmp_path)
    assert start("one.ckpt") == f"{tmp_path}/one.ckpt"
    assert start("oof/two.ckpt") == "oof/two.ckpt", "counts from the root, where the current folder has none"
    assert start("first") == "first", "a run"
    # The same file is the same start, whichever folder it was typed in.
    assert start("root/oof/two.ckpt") == "oof/two.ckpt"
    monkeypatch.chdir(tmp_path / "root")
    assert start("oof/two.ckpt") == "oof/two.ckpt"


def test_advice_repeats_what_was_typed(
    configs: Path,
    monkeypatch: pytest.MonkeyPatch,
    probe: list[Config],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    advised: Callable[[str, str], list[str]],
) -> None:
    monkeypatch.setattr(sys.modules["histofold_probe"], "run", lambda config: Workspace(config).folds())
    kept = ["competition=folders", "experiment=trial", f"paths.prepared={tmp_path}/my (1)", "prepare.scale=2"]
    others = ["fold=3", "train.epochs=4", "model=unet", "shard=1/4"]
    assert cli.main("probe", [*kept[:2], *others, *kept[2:]]) == 1
    said = capsys.readouterr().err
    assert "` first" in said
    assert advised(said, "prepare") == kept
    assert cli.main("probe", [*kept, "folds=other"]) == 1
    assert "folds=other prepare.fold_seed=1` first" in capsys.readouterr().err


def test_advice_without_a_command_line_is_a_command_all_the_same() -> None:
    assert given.again("prepare", "dsb2018") == "./run.sh prepare competition=dsb2018"
    assert given.again("prepare", "custom") == "./run.sh prepare competition=folders competition.name=custom"


def test_choices_are_listed(configs: Path, probe: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("probe", ["competition=words", "model=zzz"]) == 2
    line = capsys.readouterr().err
    assert all(name in line for name in ("fullnet", "kidney_segnet", "smp", "unet"))


OPTIONS = [
    ("model.widht=3", "model.widht: unet has no such option; did you mean model.width?"),
    ("model.width=wide", "model.width=wide: expected a whole number, found str 'wide'"),
    ("target.nothing=3", "target.nothing: foreground has no such option"),
    ("instances.sigma=3", "instances.sigma: auto has no such option"),
]


@pytest.mark.parametrize(("override", "expected"), OPTIONS, ids=[override for override, _ in OPTIONS])
def test_options_are_checked_against_the_class(
    configs: Path, probe: list[Config], capsys: pytest.CaptureFixture[str], override: str, expected: str
) -> None:
    assert cli.main("probe", ["competition=words", "model=unet", "target=foreground", "instances=auto", override]) == 2
    assert capsys.readouterr().err.startswith(f"histofold: {expected}")
    assert probe == []


def test_an_option_that_the_yaml_does_not_list_is_taken(configs: Path, probe: list[Config]) -> None:
    names = set(importlib.import_module("histofold.models").options("unet"))
    listed = set(OmegaConf.load(configs / "model" / "unet.yaml"))
    (configs / "model" / "unet.yaml").write_text("name: unet\n")
    assert listed - {"name"} <= names
    assert cli.main("probe", ["competition=words", "model=unet", "model.width=16"]) == 0
    assert probe[0].model == {"name": "unet", "width": 16}


@pytest.mark.parametrize(("fold", "code"), [(7, 2), (8, 1), (9, 130)])
def test_errors_of_the_verb_are_one_line(
    configs: Path, probe: list[Config], capsys: pytest.CaptureFixture[str], fold: int, code: int
) -> None:
    assert cli.main("probe", ["competition=words", f"fold={fold}"]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert {7: "folds 0 to 4", 8: "truncated", 9: "interrupted; go on"}[fold] in error


def test_a_bug_is_not_hidden(configs: Path, monkeypatch: pytest.MonkeyPatch, probe: list[Config]) -> None:
    def broken(config: Config) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(sys.modules["histofold_probe"], "run", broken)
    with pytest.raises(KeyError):
        cli.main("probe", ["competition=words"])


def test_a_missing_package_says_what_to_do(
    configs: Path, monkeypatch: pytest.MonkeyPatch, probe: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(config: Config) -> None:
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(sys.modules["histofold_probe"], "run", missing)
    assert cli.main("probe", ["competition=words"]) == 1
    line = capsys.readouterr().err
    assert "'timm' is missing" in line
    assert "source .venv/bin/activate" in line
    assert "./run.sh probe" in line


def test_a_read_only_place_is_one_line(
    configs: Path, monkeypatch: pytest.MonkeyPatch, probe: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(config: Config) -> None:
        raise PermissionError(13, "Permission denied", "/kaggle/input/x")

    monkeypatch.setattr(sys.modules["histofold_probe"], "run", refused)
    assert cli.main("probe", ["competition=words"]) == 1
    assert capsys.readouterr().err == "histofold: /kaggle/input/x: Permission denied\n"


def test_multirun_runs_every_combination(configs: Path, probe: list[Config], tmp_path: Path) -> None:
    argv = ["-m", "competition=words", "fold=0,1", "seed=3,4", "shard=0/4", f"paths.oof={tmp_path}/oof"]
    before = set(Path.cwd().iterdir())
    assert cli.main("probe", argv) == 0
    assert [(config.fold, config.seed) for config in probe] == [(0, 3), (0, 4), (1, 3), (1, 4)]
    assert {config.shard for config in probe} == {"0/4"}
    assert set(Path.cwd().iterdir()) == before
    assert not list((tmp_path / "oof").rglob("*"))


def test_multirun_over_choices(configs: Path, probe: list[Config], tmp_path: Path) -> None:
    argv = ["competition=words", "model=unet,fullnet", "model.width=8", f"paths.oof={tmp_path}/oof", "--multirun"]
    (configs / "model" / "fullnet.yaml").write_text("name: fullnet\n")
    assert cli.main("probe", [*argv[:2], *argv[3:]]) == 0
    assert [config.model["name"] for config in probe] == ["unet", "fullnet"]


def test_a_failing_job_does_not_stop_the_others(
    configs: Path, probe: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main("probe", ["competition=words", "-m", "fold=0,8,7,1", f"paths.oof={tmp_path}/oof"]) == 1
    assert [config.fold for config in probe] == [0, 1]
    error = capsys.readouterr().err
    assert "failed: fold=8: slide.tiff: truncated" in error
    assert "failed: fold=7: fold=7: folds.csv has folds 0 to 4" in error
    assert "2 of 4 jobs done" in error


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["fol=0,1"], "fol: unknown setting; did you mean 'fold'?"),
        (["model=unet,nope"], "model=nope: unknown model"),
        (["fold=0,1", "hydra/launcher=nothing"], "hydra/launcher=nothing: not installed"),
    ],
)
def test_a_wrong_multirun_is_one_line_and_runs_nothing(
    configs: Path,
    probe: list[Config],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    argv: list[str],
    expected: str,
) -> None:
    assert cli.main("probe", ["-m", "competition=words", f"paths.oof={tmp_path}/oof", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"histofold: {expected}")
    assert error.count("\n") == 1
    assert probe == []


def test_interrupting_a_multirun(configs: Path, probe: list[Config], tmp_path: Path) -> None:
    assert cli.main("probe", ["-m", "competition=words", "fold=0,9,1", f"paths.oof={tmp_path}/oof"]) == 130
    assert [config.fold for config in probe] == [0]
    assert not list((tmp_path / "oof").rglob("*"))


def test_help_lists_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("train", ["--help"]) == 0
    text = capsys.readouterr().out
    assert "kidney_segnet" in text
    assert "config.yaml" in text


@pytest.mark.parametrize("place", [0, 1, 2])
def test_cfg_prints_the_configuration(
    configs: Path, probe: list[Config], capsys: pytest.CaptureFixture[str], place: int
) -> None:
    words = ["competition=words", "fold=2"]
    assert cli.main("probe", [*words[:place], "--cfg", "job", *words[place:]]) == 0
    assert OmegaConf.create(capsys.readouterr().out).fold == 2
    assert probe == []


def test_cfg_prints_the_demos_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("demo", ["--cfg", "competition=demo_nuclei"]) == 0
    printed = OmegaConf.create(capsys.readouterr().out)
    expected = compose.compose(["experiment=demo_nuclei", "competition=demo_nuclei"])
    assert printed == expected
    assert cli.main("demo", ["--fold=3"]) == 2
    assert "--fold=3: unknown option" in capsys.readouterr().err


SCRIPTS = ["prepare", "train", "evaluate", "predict", "submit", "report"]


def test_scripts_give_code_2_and_leave_nothing(tmp_path: Path) -> None:
    begun = []
    for script in SCRIPTS:  # all at once: an interpreter waits more than it works
        command = [sys.executable, ROOT / "src" / f"{script}.py", "fol=1"]
        begun.append(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for script, process in zip(SCRIPTS, begun, strict=True):
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 2, (script, error)
        assert error == "histofold: fol: unknown setting; did you mean 'fold'?\n", script
    assert list(tmp_path.iterdir()) == []


def test_without_packages_a_script_says_so(tmp_path: Path) -> None:
    # -S leaves out site-packages: an interpreter without anything installed.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-S", ROOT / "src" / "train.py", "fold=0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "activate .venv" in result.stderr
    assert "./run.sh train" in result.stderr


def test_every_verb_has_its_function() -> None:
    for name, command in commands.COMMANDS.items():
        assert callable(command.function()), name


def test_heavy_packages_are_not_imported_for_a_wrong_setting(tmp_path: Path) -> None:
    code = "import sys; from histofold.cli import main; main('train', ['fol=1']); print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs" / "competition").glob("*.yaml")))
def test_every_competition_composes(name: str) -> None:
    config = compose.load(compose.compose([f"competition={name}"]))
    assert config.competition.name == ("custom" if name == "folders" else name)


GROUP_CHOICES = [
    (path.parent.name, path.stem)
    for group in ("model", "target", "loss", "augment", "optimizer", "instances", "experiment")
    for path in sorted((ROOT / "configs" / group).glob("*.yaml"))
]


@pytest.mark.parametrize(("group", "choice"), GROUP_CHOICES, ids=["/".join(pair) for pair in GROUP_CHOICES])
def test_every_choice_composes_and_fits_its_class(group: str, choice: str) -> None:
    # What enhances whole images does not go with the demo's slides, which are cut into tiles.
    fitting = ["competition=dsb2018"] if choice == "nuclei_unetpp" else []
    config = compose.load(compose.compose([f"{group}={choice}", *fitting]))
    cli.check_options(config, [group] if group in cli.GROUPS else [])
