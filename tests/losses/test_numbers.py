"""Losses on values that can be checked by hand (varCE: seed notes 2.4)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses import FocalLoss, LovaszLoss

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
    truth = np.array([[1, 0, 2], [0, 1, 2], [2, 2, 1]])
    assert inside_components(truth).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("terms", [{}, {"no_such": 1.0}, {"bce": 0.0}, {"varce": 1.0}])
def test_a_loss_that_does_not_fit_is_a_setting_error(terms: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="loss"):
        losses.build(terms, targets.build("foreground"))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_is_that_of_the_library(gamma: float) -> None:
    torch.manual_seed(0)
    raw, truth = 4 * torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    found = losses.build({"focal": 1.0, "gamma": gamma}, targets.build("foreground"))(raw, {"truth": truth})
    theirs = FocalLoss("binary", gamma=gamma, reduction="mean")(raw.reshape(-1), truth.reshape(-1))
    assert float(found) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [20.0, 200.0])
def test_focal_has_a_slope_where_the_network_is_certain(gamma: float, size: float) -> None:
    """Below one, the power of 1 - p has no slope at 0, which float32 rounds to at a logit of 17."""
    raw = torch.full((1, 1, 4, 4), size)
    raw[0, 0, 2:] *= -1
    truth = (raw > 0).float()
    truth[0, 0, 0, 0], truth[0, 0, 3, 3] = 0, 1
    raw.requires_grad_()
    loss = losses.build({"focal": 1.0, "gamma": gamma}, targets.build("foreground"))(raw, {"truth": truth})
    loss.backward()
    assert torch.isfinite(loss)
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert raw.grad[0, 0, 0, 0] > 0.05
    assert raw.grad[0, 0, 3, 3] < -0.05


@pytest.mark.parametrize("name", ["foreground", "ternary"])
def test_a_crop_without_weight_takes_no_part_in_lovasz(name: str) -> None:
    target = targets.build(name)
    torch.manual_seed(0)
    raw = torch.randn(3, target.channels, 6, 6, requires_grad=True)
    softmax = target.activation == "softmax"
    truth = torch.randint(0, 2, (3, 6, 6)) if softmax else torch.randint(0, 2, (3, 1, 6, 6)).float()
    weight = torch.ones(3, 1, 6, 6)
    weight[1] = 0
    each = losses.build({"lovasz": 1.0, "per_image": 1}, target)
    theirs = LovaszLoss("multiclass" if softmax else "binary", per_image=True)
    others = [0, 2]
    expected = theirs(raw[others], truth[others]) if softmax else theirs(raw[others, 0], truth[others, 0])
    loss = each(raw, {"truth": truth, "weight": weight})
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(loss.detach()) > 0.1
    for per_image in (0, 1):
        nothing = losses.build({"lovasz": 1.0, "per_image": per_image}, target)(
            raw, {"truth": truth, "weight": torch.zeros_like(weight)}
        )
        nothing.backward()
        assert float(nothing.detach()) == 0
    assert raw.grad is not None
    assert not raw.grad.any()


@pytest.mark.parametrize("per_image", [0, 1])
@pytest.mark.parametrize("term", ["dice", "tversky"])
def test_without_smoothing_a_crop_without_weight_is_no_nan(term: str, per_image: int) -> None:
    loss = losses.build({term: 1.0, "smooth": 0.0, "per_image": per_image}, targets.build("foreground"))
    raw = torch.randn(2, 1, 6, 6, requires_grad=True)
    truth, weight = torch.ones(2, 1, 6, 6), torch.ones(2, 1, 6, 6)
    weight[1] = 0
    one = float(loss(raw[:1], {"truth": truth[:1]}).detach())
    share = 0.5 if per_image else 1.0
    found = float(loss(raw, {"truth": truth, "weight": weight}).detach())
    assert found == pytest.approx(share * one, rel=1e-5)
    empty = loss(raw, {"truth": truth, "weight": torch.zeros_like(weight)})
    empty.backward()
    assert float(empty.detach()) == 0
    assert raw.grad is not None
    assert not raw.grad.any()


def optimum(loss: losses.Loss, truth: torch.Tensor) -> torch.Tensor:
    raw = torch.zeros_like(truth).requires_grad_()
    optimiser = torch.optim.Adam([raw], lr=0.3)
    for _ in range(200):
        optimiser.zero_grad()
        loss(raw, {"truth": truth}).backward()
        optimiser.step()
    return raw.detach().sigmoid()


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("border_distance", ("bce", "dice")),
        ("border_distance", ("bce", "tversky")),
        ("border_distance", ("bce", "lovasz")),
        ("border_distance", ("mse", "dice")),
        ("border_distance", ("focal",)),
        ("flow", ("bce", "dice")),
    ],
)
def test_soft_channels_are_learned_as_they_are(name: str, terms: tuple[str, ...]) -> None:
    """Soft Dice beside cross entropy has its least at .61 for a depth of .4, and bends a flow's vectors."""
    target = targets.build(name)
    labels = cv2.circle(np.zeros((20, 20), np.int32), (9, 9), 8, 1, -1)
    truth = torch.from_numpy(target.encode(labels))[None]
    loss = losses.build(dict.fromkeys(terms, 1.0), target)
    soft = list(target.soft)
    assert (optimum(loss, truth) - truth)[:, soft].abs().max() < 0.06


def test_the_default_of_border_distance_steepens_depths_and_keeps_their_order() -> None:
    target = targets.build("border_distance")
    labels = cv2.circle(np.zeros((32, 32), np.int32), (15, 15), 12, 1, -1)
    truth = torch.from_numpy(target.encode(labels))[None]
    found = optimum(losses.build(target.default_loss, target), truth)[0, 2]
    depth = truth[0, 2]
    low, high = (depth > 0.05) & (depth < 0.25), (depth > 0.5) & (depth < 0.9)
    assert (found[low] < depth[low] + 0.02).all()
    assert (found[high] > depth[high] + 0.05).all()
    order = depth[depth > 0].argsort()
    assert (found[depth > 0][order].diff() > -0.02).all()
    assert (optimum(losses.build({"bce": 1, "dice": 1}, target), truth)[0, 2] - depth).abs().max() < 0.03


@pytest.mark.parametrize("term", ["dice", "tversky", "lovasz"])
def test_terms_of_regions_are_those_of_the_hard_channels(term: str) -> None:
    torch.manual_seed(0)
    raw, truth = torch.randn(2, 3, 8, 8), (torch.rand(2, 3, 8, 8) > 0.5).float()
    weight = (torch.rand(2, 1, 8, 8) > 0.2).float()
    soft = losses.build({"bce": 1.0, term: 1.0}, targets.build("border_distance"))
    hard = losses.build({"bce": 1.0, term: 1.0}, targets.build("border"))
    found = soft.parts(raw, {"truth": truth, "weight": weight})[term]
    assert found == hard.parts(raw[:, :2], {"truth": truth[:, :2], "weight": weight})[term]


@pytest.mark.parametrize("name", ["border_distance", "flow"])
@pytest.mark.parametrize("terms", [("dice",), ("tversky",), ("lovasz",), ("dice", "lovasz")])
def test_terms_that_leave_soft_channels_unlearned_are_refused(name: str, terms: tuple[str, ...]) -> None:
    weights = dict.fromkeys(terms, 1.0)
    with pytest.raises(ConfigError, match=rf"target={name} .*found only {', '.join(terms)} .*add loss\.bce=1$"):
        losses.build({**weights, "bce": 0.0}, targets.build(name))
    losses.build({**weights, "bce": 1.0}, targets.build(name))
