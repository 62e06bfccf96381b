from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from timm.optim import muon

from histofold.errors import ConfigError
from histofold.training.optim import OptimizerOptions, build_optimizer, build_schedule


def rates(options: OptimizerOptions, steps: int = 100, per_epoch: int = 10) -> np.ndarray:
    optimizer = build_optimizer(torch.nn.Linear(2, 2), options)
    schedule = build_schedule(optimizer, options, steps, per_epoch)
    found = []
    for step in range(steps):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return np.array(found)


def test_cosine_warms_up_and_ends_near_nothing() -> None:
    found = rates(OptimizerOptions(lr=1.0, warmup=0.1, final=0.01))
    assert (np.diff(found[:10]) > 0).all()
    assert found.max() == pytest.approx(1.0, abs=0.02)
    assert (np.diff(found[11:]) <= 0).all()
    assert found[-1] < 0.02


def test_step_falls_every_so_many_epochs() -> None:
    found = rates(OptimizerOptions(lr=1.0, schedule="step", warmup=0, every=5, factor=0.1))
    assert np.allclose(found[:50], 1.0)
    assert np.allclose(found[50:], 0.1)


def test_step_falls_no_more_often_than_it_may() -> None:
    found = rates(OptimizerOptions(lr=1.0, schedule="step", warmup=0, every=3, factor=0.5, times=1))
    assert np.allclose(found[:30], 1.0)
    assert np.allclose(found[30:], 0.5)


def test_constant_is_constant() -> None:
    assert np.allclose(rates(OptimizerOptions(lr=0.3, schedule="constant", warmup=0)), 0.3)


def test_the_rate_is_a_function_of_the_step() -> None:
    options = OptimizerOptions(lr=1.0)
    optimizer = build_optimizer(torch.nn.Linear(2, 2), options)
    schedule = build_schedule(optimizer, options, 100, 10)
    whole = rates(options)
    for step in (70, 3, 42):  # as after a resume
        schedule.step_update(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(whole[step])


def test_biases_and_norms_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    groups = build_optimizer(model, OptimizerOptions(weight_decay=0.1)).param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decay[id(model[0].weight)] == 0.1
    assert decay[id(model[0].bias)] == decay[id(model[1].weight)] == 0.0
    everything = build_optimizer(model, OptimizerOptions(weight_decay=0.1, decay_all=True)).param_groups
    assert all(group["weight_decay"] == 0.1 for group in everything)


@pytest.mark.parametrize(
    "options", [OptimizerOptions(name="no_such"), OptimizerOptions(options={"no_such": 1})], ids=["name", "option"]
)
def test_what_timm_does_not_know_is_a_setting_error(options: OptimizerOptions) -> None:
    with pytest.raises(ConfigError, match="optimizer"):
        build_optimizer(torch.nn.Linear(2, 2), options)


def test_an_unknown_schedule_is_a_setting_error() -> None:
    options = OptimizerOptions(schedule="no_such")
    with pytest.raises(ConfigError, match=r"optimizer\.schedule"):
        build_schedule(build_optimizer(torch.nn.Linear(2, 2), options), options, 10, 1)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_fused_step_is_the_same_step(name: str) -> None:
    def trained(fused: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Linear(5, 3)
        optimizer = build_optimizer(model, OptimizerOptions(name=name, lr=0.1), fused)
        assert bool(optimizer.param_groups[0].get("fused")) == fused
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        return model.weight.detach()

    assert torch.allclose(trained(True), trained(False), atol=1e-6)


def test_only_optimisers_that_can_are_fused() -> None:
    model = torch.nn.Linear(2, 2)
    assert not build_optimizer(model, OptimizerOptions(name="lamb"), fused=True).param_groups[0].get("fused")
    chosen = OptimizerOptions(options={"foreach": True})
    assert not build_optimizer(model, chosen, fused=True).param_groups[0].get("fused")


def test_muon_turns_matrices_and_leaves_biases_and_norms_to_adamw() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    optimizer = build_optimizer(model, OptimizerOptions(name="muon", lr=0.01, weight_decay=0))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(torch.randn(4, 3, 9, 9)).square().mean().backward()
    optimizer.step()
    step = (model[0].weight.detach() - before[0]).reshape(8, -1)
    values = torch.linalg.svdvals(step)
    assert values.max() / values.min() < 2, "all directions of a matrix move alike; Adam's steps are of rank one nearly"
    assert all(not torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


def test_muon_orthogonalises_in_single_precision_where_bfloat16_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    original = muon.zeropower_via_newtonschulz

    def look(*given: Any, dtype: torch.dtype = torch.bfloat16, **named: Any) -> torch.Tensor:
        seen.append(dtype)
        return original(*given, dtype=dtype, **named)

    monkeypatch.setattr(muon, "zeropower_via_newtonschulz", look)
    for has_bf16, expected in ((True, torch.bfloat16), (False, torch.float32), (False, torch.float32)):
        monkeypatch.setattr("histofold.training.optim.cpu_has_bf16", lambda has_bf16=has_bf16: has_bf16)
        model = torch.nn.Linear(8, 8)
        optimizer = build_optimizer(model, OptimizerOptions(name="muon"))
        model(torch.randn(4, 8)).sum().backward()
        optimizer.step()
        assert seen.pop() == expected
