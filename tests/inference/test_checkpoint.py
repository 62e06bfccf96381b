"""Checkpoints: nothing but values, opened safely, refused clearly."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from histofold import models
from histofold.errors import DataError, HistofoldError, ResourceError
from histofold.inference import checkpoint
from histofold.inference.checkpoint import Spec
from histofold.inference.member import Member
from histofold.preprocess import Preprocess

SPEC = Spec(
    competition="demo_nuclei",
    run="unet",
    fold=0,
    model={"name": "smp", "arch": "Unet", "encoder": "resnet18", "weights": "none"},
    target={"name": "foreground"},
    preprocess=Preprocess(clahe=2.0).to_dict(),
    tile=64,
    scale=1.0,
    training={"epochs": 3, "score": 0.5, "note": None, "sizes": (1, 2)},
)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint with random weights, and those weights."""
    torch.manual_seed(5)
    state = models.build("smp", 1, arch="Unet", encoder="resnet18").state_dict()
    checkpoint.save(tmp_path / "model.ckpt", SPEC, state)
    return tmp_path / "model.ckpt", state


def test_round_trip(stored: tuple[Path, dict[str, torch.Tensor]]) -> None:
    spec, state = checkpoint.load(stored[0])
    assert spec == dataclasses.replace(SPEC, training={**SPEC.training, "sizes": [1, 2]})
    assert state.keys() == stored[1].keys()
    assert all(torch.equal(state[key], stored[1][key]) for key in state)


def test_member_is_ready(stored: tuple[Path, dict[str, torch.Tensor]]) -> None:
    member = Member.load(stored[0], competition="demo_nuclei")
    assert not member.training
    assert not any(parameter.requires_grad for parameter in member.parameters())
    assert member.preprocess.clahe == 2.0
    assert [band.name for band in member.bands] == ["foreground"]
    assert member.divisor == 32
    bands = member(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    assert bands.shape == (2, 1, 64, 64)
    assert 0 <= float(bands.min()) <= float(bands.max()) <= 1


def test_each_fold_is_a_module_of_its_own(tmp_path: Path) -> None:
    """Loading every fold into one module makes an ensemble of one fold counted several times."""
    members = []
    for fold in range(2):
        torch.manual_seed(fold)
        state = models.build("smp", 1, arch="Unet", encoder="resnet18").state_dict()
        path = tmp_path / f"fold{fold}.ckpt"
        checkpoint.save(path, dataclasses.replace(SPEC, fold=fold), state)
        members.append(Member.load(path))
    assert members[0].network is not members[1].network
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert not torch.allclose(members[0](pixels), members[1](pixels))
    assert [member.spec.fold for member in members if member.spec] == [0, 1]


def test_nothing_is_fetched(
    stored: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that was trained from ImageNet weights loads without a network connection."""
    path = tmp_path / "imagenet.ckpt"
    spec = dataclasses.replace(SPEC, model={**SPEC.model, "weights": "imagenet"})
    checkpoint.save(path, spec, stored[1])

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    member = Member.load(path)
    assert torch.equal(next(iter(member.network.state_dict().values())), next(iter(stored[1].values())))


class Evil:
    """Pickles into a call."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch owned",)


def test_a_stranger_s_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"kind": checkpoint.KIND, "format": 1, "spec": Evil(), "state": {}}, tmp_path / "evil.ckpt")
    with pytest.raises(DataError, match=r"evil\.ckpt: not a histofold checkpoint"):
        checkpoint.load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 no zip", b"\x80\x04N."])
def test_not_a_checkpoint_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.ckpt: (not|a torch file, but not) a histofold checkpoint"):
        checkpoint.load(path)


def test_cut_off(stored: tuple[Path, dict[str, torch.Tensor]]) -> None:
    data = stored[0].read_bytes()
    stored[0].write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="or a broken one"):
        checkpoint.load(stored[0])


def test_missing_and_foreign(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such checkpoint; train that fold first"):
        checkpoint.load(tmp_path / "model.ckpt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="a torch file, but not a histofold checkpoint"):
        checkpoint.load(tmp_path / "other.pt")


def test_other_format_version(stored: tuple[Path, dict[str, torch.Tensor]]) -> None:
    content = torch.load(stored[0], weights_only=True)
    torch.save({**content, "format": 99}, stored[0])
    with pytest.raises(DataError, match="checkpoint format 99, but this version reads format 1"):
        checkpoint.load(stored[0])


def test_damaged_description(stored: tuple[Path, dict[str, torch.Tensor]]) -> None:
    content = torch.load(stored[0], weights_only=True)
    del content["spec"]["tile"]
    torch.save(content, stored[0])
    with pytest.raises(DataError, match="its description is damaged"):
        checkpoint.load(stored[0])


def test_other_competition_target_or_scale(stored: tuple[Path, dict[str, torch.Tensor]]) -> None:
    with pytest.raises(DataError, match=r"made for competition 'demo_nuclei', expected 'dsb2018'"):
        Member.load(stored[0], competition="dsb2018")
    with pytest.raises(DataError, match=r"demo_nuclei/unet/fold0: made for target 'foreground', expected 'border'"):
        checkpoint.require(SPEC, target="border")
    with pytest.raises(DataError, match=r"made for scale 1\.0, expected 4\.0"):
        checkpoint.require(SPEC, scale=4.0)
    checkpoint.require(SPEC, competition="demo_nuclei", target="foreground", scale=1.0)


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    checkpoint.save(path, SPEC, {"layer.weight": torch.zeros(3)})
    with pytest.raises(DataError, match="its weights do not fit the network"):
        Member.load(path)


def test_an_unknown_network_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    checkpoint.save(path, dataclasses.replace(SPEC, model={"name": "transformer9"}), {})
    with pytest.raises(HistofoldError, match="transformer9"):
        Member.load(path)


def test_only_plain_values(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain values only, found object"):
        checkpoint.save(tmp_path / "m.ckpt", dataclasses.replace(SPEC, training={"x": object()}), {})


@pytest.mark.parametrize("room", [0, 100, 1_000_000])
def test_a_full_disk_leaves_the_old_file(
    stored: tuple[Path, dict[str, torch.Tensor]], small_disk: Callable[[int], AbstractContextManager[None]], room: int
) -> None:
    before = stored[0].read_bytes()
    with small_disk(room), pytest.raises(ResourceError, match=r"model\.ckpt: the disk is full"):
        checkpoint.save(stored[0], SPEC, {"x": torch.zeros(500_000)})
    assert stored[0].read_bytes() == before
    assert [path.name for path in stored[0].parent.iterdir()] == ["model.ckpt"]
