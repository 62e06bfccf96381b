"""provenance.json says what the files beside it are of, whatever was predicted, evaluated or submitted since."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from histofold.files import read_json
from histofold.inference import checkpoint
from histofold.inference.checkpoint import Spec
from histofold.inference.ensemble import Ensemble, RunWeight, checkpoints_of
from histofold.inference.member import Member
from histofold.preprocess import Preprocess


def evaluate(world: Any, seed: int, score: float) -> str:
    """The ensemble of one network that knows nothing, and of a score that was never measured; gives its hash."""
    torch.manual_seed(seed)
    model, target = {"name": "unet", "width": 4}, {"name": "foreground"}
    spec = Spec("custom", "net", 0, model, target, Preprocess(whole=True).to_dict(), 64, 1.0, {"samples": []})
    checkpoint.save(world.oof / "net" / "fold0" / "model.ckpt", spec, Member.build(spec).network.state_dict())
    used = tuple(checkpoints_of(world.oof.parent, "custom", ["net"], [0]))
    Ensemble(
        *("custom", "one", "aji", (RunWeight("net", 1.0),), (0,), True, ("foreground",), used),
        instances={"name": "threshold", "threshold": 0.5},
        score={"cross_fitted": score, "optimistic": score},
    ).write(world.oof.parent)
    return used[0].sha256


@pytest.fixture
def world(draw: Callable[..., Any]) -> Any:
    world = draw(1, "predict.device=cpu")
    evaluate(world, 0, 0.1)
    assert world.run("predict") == 0
    return world


def recorded(world: Any) -> dict[str, Any]:
    return dict(read_json(world.submission / "provenance.json"))


def test_predict_never_passes_another_ensembles_submission_off_as_its_own(world: Any) -> None:
    assert world.run("submit") == 0
    before = recorded(world)
    sha256 = evaluate(world, 1, 0.9)
    assert world.run("predict", "limits.memory=1MB") == 1
    assert recorded(world) == before, "nothing was touched"
    assert world.run("predict") == 0
    after = recorded(world)
    assert after["ensemble"]["checkpoints"][0]["sha256"] == sha256
    submitted = after["submit"]
    assert submitted.pop("predicted_anew") >= before["submit"]["finished"]
    assert submitted == {**before["submit"], "ensemble": before["ensemble"]}
    assert world.run("submit") == 0
    assert set(recorded(world)["submit"]) == set(before["submit"])


def test_predict_that_finds_all_there_changes_no_record_of_a_submission(world: Any) -> None:
    assert world.run("submit") == 0
    before = recorded(world)
    evaluate(world, 0, 0.9)
    assert world.run("predict") == 0
    assert recorded(world) == before, "CSV and labels are of the ensemble as it was"


def test_the_time_of_predict_is_that_of_all_its_sittings(world: Any) -> None:
    first = recorded(world)
    first["predict"]["started"] = "2020-01-01T00:00:00+00:00"  # long ago: times are in whole seconds
    (world.submission / "provenance.json").write_text(json.dumps(first))
    before = first["predict"]
    assert world.run("predict") == 0
    assert recorded(world)["predict"] == before
    (world.submission / "predictions" / "dark01.tif").unlink()
    assert world.run("predict") == 0
    after = recorded(world)["predict"]
    assert after["started"] == before["started"]
    assert after["seconds"] > before["seconds"]
    assert world.run("predict", "predict.tta=none") == 0
    assert recorded(world)["predict"]["started"] > "2026", "with other settings it begins anew"
