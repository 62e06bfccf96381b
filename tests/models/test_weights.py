"""Foreign weights: the authors' Kidney-SegNet by its names, and encoders from a local file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from histofold import models
from histofold.errors import DataError
from histofold.models.weights import authors_name

DEAD = {"upconv1": (256, 128), "upconv2": (128, 64), "upconv3": (64, 32)}
"""Their transposed convolutions that are built and never called."""

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def unit_names(prefix: str) -> set[str]:
    """Names of a DiCE unit of theirs."""
    names = {f"{prefix}.conv_{view}.weight" for view in ("channel", "width", "height")}
    names |= {f"{prefix}.br_act.br.0.{part}" for part in NORM} | {f"{prefix}.br_act.br.1.weight"}
    for layer in ("weight_avg_layer", "proj_layer"):
        names |= {f"{prefix}.{layer}.cbr.0.weight", f"{prefix}.{layer}.cbr.2.weight"}
        names |= {f"{prefix}.{layer}.cbr.1.{part}" for part in NORM}
    return names | {f"{prefix}.linear_comb_layer.{number}.weight" for number in (1, 3)}


def their_names() -> set[str]:
    """All names of their class but for the dead layers, written out from its description."""
    names = {f"{layer}.{part}" for layer in ("conv1a", "seg_map_conv", "aspp.final_layer") for part in NORM[:2]}
    stages = ["1b", *(f"{number}{letter}" for number in (2, 3, 4, 6, 7, 8) for letter in "ab")]
    for stage in stages:
        names |= unit_names(f"conv{stage}")
    for stage in ["1a", *stages]:
        names |= {f"bn{stage}.{part}" for part in NORM}
    for branch in range(1, 5):
        names |= unit_names(f"aspp.branch{branch}")
    for gate in range(1, 4):
        for layer in ("lx", "lg", "upconv", "lmid", "resamp"):
            names |= {f"att{gate}.{layer}.{part}" for part in NORM[:2]}
    return names


def kidney_segnet(seed: int, weights: str = "none", **options: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    given = {"size": 64, "width": 32, "decoder": "gated", **options}
    return models.build("kidney_segnet", outputs=1, weights=weights, **given)


def their_state(network: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """A state dict of theirs with the weights of our network, and random dead layers."""
    state = {authors_name(name): value for name, value in network.state_dict().items()}
    for layer, (before, after) in DEAD.items():
        state |= {f"{layer}.weight": torch.randn(before, after, 3, 3), f"{layer}.bias": torch.randn(after)}
    return {prefix + name: value for name, value in state.items()}


def test_every_name_of_the_authors_class_has_its_place() -> None:
    ours = [authors_name(name) for name in kidney_segnet(0).state_dict()]
    assert len(ours) == len(set(ours))
    assert set(ours) == their_names()


def test_the_dead_layers_are_what_the_authors_count_is_too_large_by() -> None:
    assert sum(before * after * 9 + after for before, after in DEAD.values()) == 387_296


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_weights_compute_the_same_and_dead_layers_are_dropped(prefix: str, tmp_path: Path) -> None:
    source = kidney_segnet(0)
    torch.save({"state_dict": their_state(source, prefix)}, tmp_path / "theirs.pth")
    loaded = kidney_segnet(1, weights=str(tmp_path / "theirs.pth"))
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(source.eval()(image), loaded.eval()(image))
    assert not any(name.startswith("upconv") for name, _ in loaded.named_parameters())


def test_a_view_is_not_taken_for_another() -> None:
    state = their_state(kidney_segnet(0))
    assert state["conv2a.conv_channel.weight"].shape == (32, 1, 3, 3)
    assert state["conv2a.conv_height.weight"].shape == state["conv2a.conv_width.weight"].shape == (32, 1, 3, 3)
    assert state["conv4b.conv_channel.weight"].shape == (256, 1, 3, 3)
    assert state["conv4b.conv_height.weight"].shape == (8, 1, 3, 3)
    assert state["aspp.branch1.conv_height.weight"].shape == (8, 1, 1, 1)
    assert state["conv1b.weight_avg_layer.cbr.0.weight"].shape == (32, 3, 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 128}, "model.size"), ({"width": 16}, "model.width"), ({"decoder": "unet"}, "decoder=gated")],
)
def test_weights_of_another_build_are_refused_with_advice(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    torch.save(their_state(kidney_segnet(0)), tmp_path / "theirs.pth")
    with pytest.raises(DataError, match=message):
        kidney_segnet(1, weights=str(tmp_path / "theirs.pth"), **options)


def test_a_stranger_in_the_file_is_refused(tmp_path: Path) -> None:
    torch.save({**their_state(kidney_segnet(0)), "conv9a.weight": torch.zeros(1)}, tmp_path / "theirs.pth")
    with pytest.raises(DataError, match="conv9a"):
        kidney_segnet(1, weights=str(tmp_path / "theirs.pth"))


@pytest.mark.parametrize(("suffix", "prefix"), [(".pth", ""), (".safetensors", "module."), (".pth", "encoder.")])
def test_an_encoder_loads_from_a_local_file(suffix: str, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = models.build("smp", outputs=1, encoder="resnet18")
    state = {prefix + name: value for name, value in source.net.encoder.state_dict().items()}
    state["fc.weight"] = torch.zeros(1000, 512)  # a classifier's last layer is not used
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    loaded = models.build("smp", outputs=1, encoder="resnet18", weights=str(path))
    for name, value in loaded.net.encoder.state_dict().items():
        assert torch.equal(value, source.net.encoder.state_dict()[name]), name


def test_another_encoders_file_is_refused(tmp_path: Path) -> None:
    torch.save(models.build("smp", outputs=1, encoder="resnet18").net.encoder.state_dict(), tmp_path / "r18.pth")
    with pytest.raises(DataError, match="another encoder"):
        models.build("smp", outputs=1, encoder="resnet34", weights=str(tmp_path / "r18.pth"))
    with pytest.raises(DataError, match="no file"):
        models.build("smp", outputs=1, encoder="resnet18", weights=str(tmp_path / "absent.pth"))
