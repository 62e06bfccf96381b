"""Losses on values that can be checked by hand (varCE: seed notes 2.4)."""

from __future__ import annotations

import pytest
import torch

from histofold import losses, targets
from histofold.errors import ConfigError
from histofold.losses.varce import inside_components, instance_variance

SIGMOID = ["bce", "dice", "focal", "lovasz", "tversky"]


def two_instances() -> tuple[torch.Tensor, torch.Tensor]:
    """One instance of 9 pixels with p0 from 0 to 1 and p1 = 1 - p0, one with constant p."""
    probability = torch.zeros(1, 3, 3, 6)
    probability[:, 0] = 0.2
    probability[:, 1] = 0.8
    probability[0, 0, :, :3] = torch.linspace(0, 1, 9).view(3, 3)
    probability[0, 1, :, :3] = 1 - probability[0, 0, :, :3]
    instances = torch.ones(1, 3, 6, dtype=torch.int64)
    instances[:, :, 3:] = 2
    return probability, instances


def test_the_papers_test_vectors() -> None:
    probability, instances = two_instances()
    assert float(instance_variance(probability, instances)) == pytest.approx(0.1171875)
    assert float(instance_variance(torch.full_like(probability, 1 / 3), instances)) == pytest.approx(0.0, abs=1e-12)
    assert float(instance_variance(probability, torch.zeros_like(instances))) == 0.0


def test_a_single_pixel_adds_nothing_and_counts() -> None:
    probability, instances = two_instances()
    instances[0, 0, 5] = 3
    assert float(instance_variance(probability, instances)) == pytest.approx(0.1171875 * 2 / 3)


def test_an_empty_crop_gives_exactly_the_cross_entropy() -> None:
    target = targets.build("ternary")
    raw = torch.randn(2, 3, 16, 16)
    truth = torch.zeros(2, 16, 16, dtype=torch.int64)
    batch = {"truth": truth, "instances": truth.int()}
    plain = losses.build({"bce": 1.0}, target)(raw, batch)
    assert torch.equal(losses.build({"varce": 1.0}, target)(raw, batch), plain)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    raw = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    instances = torch.tensor([[[1, 1, 0, 2, 2]] * 4])
    assert torch.autograd.gradcheck(lambda value: instance_variance(value.softmax(1), instances), (raw,))


@pytest.mark.parametrize("name", SIGMOID)
def test_a_perfect_prediction_loses_less_than_its_opposite(name: str) -> None:
    target = targets.build("foreground")
    truth = torch.zeros(2, 1, 8, 8)
    truth[:, :, 2:6, 2:6] = 1
    loss = losses.build({name: 1.0}, target)
    good, bad = loss(20 * (truth - 0.5), {"truth": truth}), loss(-20 * (truth - 0.5), {"truth": truth})
    assert float(good) < 0.05
    assert float(bad) > float(good) + 0.5


@pytest.mark.parametrize("name", ["bce", "dice", "focal", "tversky"])
def test_padding_carries_no_loss(name: str) -> None:
    target = targets.build("foreground")
    truth = torch.zeros(1, 1, 8, 8)
    weight = torch.ones(1, 1, 8, 8)
    weight[..., 4:] = 0
    raw = torch.randn(1, 1, 8, 8)
    other = raw.clone()
    other[..., 4:] = 50.0
    loss = losses.build({name: 1.0}, target)
    batch = {"truth": truth, "weight": weight}
    assert torch.allclose(loss(raw, batch), loss(other, batch), atol=1e-5)


def test_terms_add_up_with_their_weights() -> None:
    target = targets.build("foreground")
    truth, raw = (torch.rand(2, 1, 8, 8) > 0.5).float(), torch.randn(2, 1, 8, 8)
    both = losses.build({"bce": 0.3, "dice": 0.7}, target)(raw, {"truth": truth})
    parts = [float(losses.build({name: 1.0}, target)(raw, {"truth": truth})) for name in ("bce", "dice")]
    assert float(both) == pytest.approx(0.3 * parts[0] + 0.7 * parts[1], rel=1e-5)


def test_instances_are_eight_connected_components_of_the_inside() -> None:
    import numpy as np

    truth = np.array([[1, 0, 2], [0, 1, 2], [2, 2, 1]])
    assert inside_components(truth).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("terms", [{}, {"no_such": 1.0}, {"bce": 0.0}, {"varce": 1.0}])
def test_a_loss_that_does_not_fit_is_a_setting_error(terms: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="loss"):
        losses.build(terms, targets.build("foreground"))
