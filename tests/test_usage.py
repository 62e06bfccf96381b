"""What the help of verbs and of run.sh says: commands that are accepted as they stand, in bash and in zsh."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from histofold import cli, demo
from histofold.commands import COMMANDS, Command
from histofold.compose import compose, load
from histofold.options import AugmentOptions
from histofold.usage import documented

ROOT = Path(__file__).parents[1]
ADVISED = re.findall(r"\./run\.sh \w+ competition=.*", (ROOT / "run.sh").read_text())
"""Commands in the help of run.sh."""


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(verb, ["--help"]) == 0
    return capsys.readouterr().out


def check(line: str) -> None:
    """Look whether a command line can be typed as it stands: brackets quoted for zsh, the overrides accepted."""
    door, verb, *overrides = shlex.split(line)
    assert shlex.join([door, verb, *overrides]) == line.strip()
    if verb == "demo":
        overrides = demo.base(overrides)
    # -m gives each of several values to a job of its own.
    config = load(compose([re.sub(r"^fold=0,.*", "fold=0", word) for word in overrides if word != "-m"]))
    cli.check_options(config, COMMANDS[verb].groups if verb in COMMANDS else ())


@pytest.mark.parametrize("verb", ["demo", *COMMANDS])
def test_the_example_of_a_verb_is_accepted(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.strip() for line in help_of(verb, capsys).splitlines() if "./run.sh" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"./run.sh {verb} competition=")
    check(lines[0])


@pytest.mark.parametrize("line", ADVISED)
def test_commands_in_the_help_of_run_sh_are_accepted(line: str) -> None:
    check(line)


def test_the_help_of_run_sh_says_which_ensemble_predicts_images() -> None:
    assert len(ADVISED) >= 8
    assert "./run.sh predict competition=dsb2018 name=unet images=FOLDER" in ADVISED


def test_the_run_for_whole_slides_in_the_readme_is_one_that_slides_accept() -> None:
    (line,) = re.findall(r"^\./run\.sh train .*run=smp_slides.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    check(line)
    config = load(compose(line.removesuffix(" -m fold=0,1,2,3,4").split()[2:]))
    # What `enhanced.require_alike` and `sized.rows` refuse in what is read by window.
    augment = AugmentOptions(**config.augment)
    assert (augment.stretch, augment.clahe, augment.normalise, config.predict.size) == (0, 0, "none", 0)


READ = {
    "evaluate": ("runs=", "name=", "folds=", "evaluate.search="),
    "predict": ("name=", "images=", "predict.tta="),
    "submit": ("name=", "submit.send="),
    "kernel": ("name=", "kernel.push=", "kernel.wheels="),
    "report": ("name=",),
    "validate": ("file=", "name="),
    "train": ("fold=", "run=", "train.epochs=", "train.loggers="),
    "prepare": ("prepare.tile=",),
}


@pytest.mark.parametrize("verb", READ)
def test_help_names_the_settings_that_a_verb_reads(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(verb, capsys)
    assert all(re.search(rf"^  {re.escape(key)}", text, re.MULTILINE) for key in READ[verb])
    assert max(map(len, text.splitlines()[:-1])) <= 120


def test_help_lists_only_choices_that_a_verb_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(f"  {group}= " in help_of("train", capsys) for group in ("model", "target", "loss", "competition"))
    for verb in ("predict", "submit", "evaluate", "report", "validate", "download"):
        text = help_of(verb, capsys)
        assert "  competition= " in text, verb
        assert "  model= " not in text, verb
    assert "Choices" not in help_of("demo", capsys), "the demo takes its own two competitions only"


def test_every_setting_is_documented_once() -> None:
    found = list(documented((ROOT / "configs" / "config.yaml").read_text()))
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names)
    known = {name: (value, meaning) for name, value, meaning in found}
    assert known["fold"][0] == "0"
    assert known["evaluate.second_level"][0] == "off"
    assert known["kernel.python"][0] == "[3.11,3.12]"
    assert "0: as they are. Set it in training, which predicts" in known["predict.size"][1], "goes on in the next line"
    assert {"runs", "name", "images", "file", "paths.oof"} <= set(names)
    assert not {"model", "limits", "defaults", "train"} & set(names), "choices and groups have no default of their own"


def test_a_usage_that_names_no_setting_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = COMMANDS["report"].usage
    wrong = Command("a:b", "c", "d", usage=type(usage)(usage.example, ("nmae",)))
    monkeypatch.setitem(COMMANDS, "report", wrong)
    with pytest.raises(KeyError, match="nmae"):
        cli.main("report", ["--help"])
