"""Every network in eval mode through torch.export and ONNX with a free batch size: outputs equal within 1e-4."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import torch

from histofold import models
from histofold.models.dice import DiceUnit

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "kidney_segnet": ("kidney_segnet", {"size": 32, "width": 4}),
    "kidney_segnet gated": ("kidney_segnet", {"size": 32, "width": 4, "decoder": "gated"}),
    "kidney_segnet resized": ("kidney_segnet", {"size": 40, "width": 4}),
    "fullnet": ("fullnet", {"growth": 4}),
    "fullnet pooling": ("fullnet", {"growth": 4, "pooling": True}),
    "fullnet bottleneck": ("fullnet", {"growth": 4, "layers": "bottleneck", "checkpoint": True}),
    "unet": ("unet", {"width": 4}),
    "unet batch": ("unet", {"width": 4, "norm": "batch"}),
    "glomerulus_unet": ("glomerulus_unet", {"width": 4}),
    "unetpp": ("unetpp", {"width": 4}),
    "unetpp L2": ("unetpp", {"width": 4, "mode": "fast", "depth": 2}),
    "smp": ("smp", {"encoder": "tu-test_resnet"}),
}
OUTPUTS = 2
USUAL = ["fullnet", "unet", "glomerulus_unet", "unetpp", "smp"]
"""One of each class but Kidney-SegNet, for which one of its stages stands; the others are asked with the slow tests."""


@functools.cache
def settled(name: str) -> torch.nn.Module:
    """A network in eval mode whose norms have seen data, with outputs of ordinary size."""
    kind, options = NETWORKS[name]
    torch.manual_seed(0)
    network = models.build(kind, outputs=OUTPUTS, **options)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.9
    with torch.no_grad():
        for key, value in network.named_parameters():
            if "head" in key and value.ndim == 4:
                value.normal_(std=0.3)
        for _ in range(3):
            network.train()(images(name, 2))
        spread = network.eval()(images(name, 2)).std()
        for key, value in network.named_parameters():
            if "head" in key and value.shape[0] == OUTPUTS:
                value.div_(spread)
    return network


def images(name: str, count: int) -> torch.Tensor:
    # Four or five poolings leave so little of 32 × 32 that its statistics would magnify every rounding error.
    side = 64 if name in ("smp", "fullnet pooling") else 32
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def expected(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = network(image)
    assert float(found.std()) > 0.2, "an output that hardly varies shows nothing"
    return found


@functools.cache
def exported(name: str) -> torch.export.ExportedProgram:
    return torch.export.export(settled(name), (images(name, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))


def check_export(name: str) -> None:
    network = settled(name)
    program = exported(name)
    for count in (2, 5):
        image = images(name, count)
        assert torch.allclose(program.module()(image), expected(network, image), atol=1e-4), count


@pytest.mark.parametrize("name", USUAL)
def test_torch_export_takes_every_network_and_any_batch(name: str) -> None:
    check_export(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - set(USUAL)))
def test_torch_export_takes_every_variant(name: str) -> None:
    check_export(name)


def check_onnx(name: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network = settled(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its versions
        program = torch.onnx.export(exported(name), dynamo=True, verbose=False)
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (2, 5):
        image = images(name, count)
        found = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
        assert torch.allclose(torch.from_numpy(found), expected(network, image), atol=1e-4), count


def test_onnx_takes_a_network_and_any_batch() -> None:
    check_onnx("glomerulus_unet")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"glomerulus_unet"}))
def test_onnx_takes_every_network_and_any_batch(name: str) -> None:
    check_onnx(name)


def stage() -> torch.nn.Module:
    """The last stage of Kidney-SegNet's decoder: attention gate, deep feature, two DiCE units."""
    found: torch.nn.Module = settled("kidney_segnet").get_submodule("decoder.2")
    return found


def features(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 4, 32, 32, generator=generator), torch.randn(count, 8, 16, 16, generator=generator)


def test_torch_export_takes_a_stage_of_kidney_segnet_and_any_batch() -> None:
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(stage(), features(2), dynamic_shapes=(batch, batch))
    calls = {str(node.target) for node in program.graph.nodes}
    assert any("prelu" in call for call in calls), "the exported graph holds the units' own layers"
    for count in (2, 5):
        skip, coarse = features(count)
        with torch.inference_mode():
            found = stage()(skip, coarse)
        assert float(found.std()) > 0.2
        assert torch.allclose(program.module()(skip, coarse), found, atol=1e-4), count


def test_what_exports_of_kidney_segnet_are_compared_with_is_its_fast_form() -> None:
    units = [layer for layer in settled("kidney_segnet").modules() if isinstance(layer, DiceUnit)]
    assert len(units) > 10
    with torch.inference_mode():
        assert all(unit.is_fast(torch.zeros(1, unit.in_channels, *unit.size), None) for unit in units)
