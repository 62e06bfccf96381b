"""Options of augmentation, optimiser and loss are checked before anything is opened; and what makes two runs one."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any, get_args, get_type_hints

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from histofold import checks, cli, compose, identity
from histofold.config import Config
from histofold.errors import ConfigError
from histofold.options import CHOICES, RANGES, AugmentOptions, OptimizerOptions

WRONG = [
    ("optimizer.lr=abc", "optimizer.lr=abc: expected a number, found str 'abc'"),
    ("optimizer.lr=-1", "optimizer.lr=-1: out of range; expected at least 0"),
    ("optimizer.lr=inf", "optimizer.lr=inf: out of range; expected at least 0"),
    ("optimizer.lr=nan", "optimizer.lr=nan: out of range; expected at least 0"),
    ("optimizer.every=0", "optimizer.every=0: out of range; expected at least 1"),
    ("optimizer.warmup=2", "optimizer.warmup=2: out of range; expected from 0 to 1"),
    ("optimizer.schedule=steps", "optimizer.schedule=steps: expected one of cosine, step, constant; did you mean "),
    ("optimizer.options=3", "optimizer.options=3: expected a group of settings, found int 3"),
    ("+optimizer.foo=1", "optimizer.foo: no such option (there are: name, lr,"),
    ("+augment.flips=1", "augment.flips: no such option; did you mean augment.flip?"),
    ("augment.flip=2", "augment.flip=2: out of range; expected from 0 to 1"),
    ("augment.flip_y=2", "augment.flip_y=2: out of range; expected from 0 to 1"),
    ("augment.flip_y=up", "augment.flip_y=up: expected a number or null, found str 'up'"),
    ("augment.mean=[0,0]", "augment.mean=[0, 0]: expected a list of 3 values, found list [0, 0]"),
    ("augment.mean=[128,128,128]", "augment.mean=[128, 128, 128]: out of range; expected from 0 to 1"),
    ("augment.std=[0,1,1]", "augment.std=[0, 1, 1]: out of range; expected from 0.001 to 1"),
    ("augment.light=2", "augment.light=2: out of range; expected from 0 to 1"),
    ("augment.scale=[0,1]", "augment.scale=[0, 1]: out of range; expected from 0.01 to 100"),
    ("augment.scale=[1.2,0.8]", "augment.scale=[1.2, 0.8]: expected the smaller number first"),
    ("augment.scale=[1,1,1]", "augment.scale=[1, 1, 1]: expected a list of 2 values, found list [1, 1, 1]"),
    ("augment.scale=1.0", "augment.scale=1.0: expected a list of 2 values, found float 1.0"),
    ("augment.rotate=abc", "augment.rotate=abc: expected a number, found str 'abc'"),
    ("augment.brightness=-1", "augment.brightness=-1: out of range; expected from 0 to 1"),
    ("augment.gamma=[0,100]", "augment.gamma=[0, 100]: out of range; expected from 1 to 1000"),
    ("augment.hue=400", "augment.hue=400: out of range; expected from 0 to 180"),
    ("augment.noise_std=[0,2]", "augment.noise_std=[0, 2]: out of range; expected from 0 to 1"),
    ("augment.clahe=-1", "augment.clahe=-1: out of range; expected at least 0"),
    ("augment.stretch=60", "augment.stretch=60: out of range; expected from 0 to 49"),
    ("augment.normalise=vahadane", "augment.normalise=vahadane: expected one of none, reinhard, macenko"),
    ("loss.gamma=-3", "loss.gamma=-3: out of range; expected at least 0"),
    ("loss.sigma=-1", "loss.sigma=-1: out of range; expected at least 0"),
]


@pytest.fixture(scope="module")
def composed() -> Config:
    return compose.load(compose.compose([]))


@pytest.fixture
def config(composed: Config) -> Config:
    return copy.deepcopy(composed)


@pytest.mark.parametrize(("override", "expected"), WRONG, ids=[override for override, _ in WRONG])
def test_a_wrong_option_is_told(config: Config, override: str, expected: str) -> None:
    key, _, text = override.lstrip("+").partition("=")
    group, name = key.split(".")
    getattr(config, group)[name] = OverridesParser.create().parse_override(f"x={text}").value()
    with pytest.raises(ConfigError) as found:
        checks.settings(config)
    assert str(found.value).startswith(expected)


@pytest.mark.parametrize("option", ["stretch", "clahe"])
@pytest.mark.parametrize("other", ["prepare.tile=512", "train.crop=512", "predict.tile=512"])
def test_tiles_of_slides_are_enhanced_at_one_size(option: str, other: str) -> None:
    """Training enhances the stored tile and prediction the predicted one: of 512 and 256, CLAHE differs by 8 levels."""
    sizes = ["prepare.tile=256", "train.crop=256", "predict.tile=256", other]
    text = rf"augment\.{option}=2: looks at all of a tile.* prepare\.tile=.* expected prepare\.tile="
    with pytest.raises(ConfigError, match=text):
        compose.load(compose.compose(["competition=hubmap_kidney", f"augment.{option}=2", *sizes]))
    for allowed in (
        ["competition=hubmap_kidney", *sizes],
        ["competition=hubmap_kidney", f"augment.{option}=2"],
        ["competition=hubmap_kidney", f"augment.{option}=2", "prepare.tile=512", "train.crop=512", "predict.tile=512"],
        ["competition=dsb2018", f"augment.{option}=2", *sizes],
    ):
        compose.load(compose.compose(allowed))


def test_it_is_one_line_and_code_2_before_anything_is_opened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histofold.commands.Command.function", lambda _: pytest.fail("the verb was begun"))
    assert cli.main("train", ["+augment.flips=1"]) == 2
    assert capsys.readouterr().err == "histofold: augment.flips: no such option; did you mean augment.flip?\n"


@pytest.mark.parametrize("group", ["augment", "optimizer", "loss", "experiment"])
def test_every_choice_that_comes_with_histofold_passes(config: Config, group: str) -> None:
    for path in sorted((compose.CONFIGS / group).glob("*.yaml")):
        found = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(found, dict)
        for section, values in found.items() if group == "experiment" else [(group, found)]:
            if section in ("augment", "optimizer", "loss"):
                setattr(config, section, values)
                checks.settings(config)


def test_every_number_has_its_range() -> None:
    for group, kind in checks.OPTIONS.items():
        hints = get_type_hints(kind)
        for name, value in asdict(kind()).items():
            is_number = isinstance(value, (int, float, tuple)) and not isinstance(value, bool)
            is_number = is_number or float in get_args(hints[name])
            assert (f"{group}.{name}" in RANGES) == is_number, name
    defaults = {"augment": AugmentOptions(), "optimizer": OptimizerOptions()}
    for key in (*RANGES, *CHOICES):
        group, name = key.split(".")
        assert hasattr(defaults[group], name), key


def saved(config: Config) -> dict[str, Any]:
    """A configuration with the augmentation's defaults, as a run's config.yaml gives it."""
    config.augment = asdict(AugmentOptions())
    found = OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.structured(config))))
    assert isinstance(found, dict)
    return found


def test_a_run_from_before_an_option_existed_is_the_same_run(config: Config) -> None:
    now = saved(config)
    for key in asdict(AugmentOptions()):
        before = copy.deepcopy(now)
        del before["augment"][key]
        assert identity.difference(before, now) is None, key
        other = copy.deepcopy(now)
        other["augment"][key] = ["another", "value"]
        assert identity.difference(before, other) is not None, key


@pytest.mark.parametrize("word", ["all", [0, 1]])
def test_all_folds_are_the_default_set(config: Config, word: Any) -> None:
    """A run that was begun with `folds=all` goes on with the default, and the other way round: both read folds.csv."""
    default = saved(config)
    assert identity.difference({**default, "folds": word}, default) is None
    assert identity.difference({**default, "folds": "second"}, default) == ("folds", "second", "default")
