from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from histofold import losses, targets
from histofold.losses.weight_map import WeightMap
from histofold.preprocess import Preprocess
from histofold.tiles.augment import AugmentOptions, warp
from histofold.tiles.dataset import CropDataset
from histofold.tiles.sampler import EpochSampler
from histofold.tiles.store import COLUMNS, VERSION, Store


def write_store(folder: Path, kind: str, count: int = 3) -> Store:
    """A store of random pixels whose red channel shows the labels."""
    random = np.random.default_rng(0)
    rows = []
    for part in ("pixels", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        shape = (80, 100) if kind == "whole" else (2, 64, 64)
        pixels = random.integers(0, 200, (*shape, 3), dtype=np.uint8)
        labels = np.zeros(shape, np.uint16)
        labels[..., 20:30, 20:30] = 1
        labels[..., 40:50, 20:35] = 2
        pixels[..., 0] = np.where(labels > 0, 255, 0)
        np.save(folder / "pixels" / f"s{number}.npy", pixels)
        np.save(folder / "masks" / f"s{number}.npy", labels)
        for index in range(1 if kind == "whole" else 2):
            rows.append(
                {
                    "tile_id": f"s{number}_{index}", "sample_id": f"s{number}", "kind": kind, "index": index,
                    "y": 0, "x": 0, "height": shape[-2], "width": shape[-1], "scale": 1.0,
                    "valid_height": shape[-2] if index == 0 else 48, "valid_width": shape[-1],
                    "tissue": 1.0, "foreground": 0.1, "weight": 1.0,
                }
            )  # fmt: skip
    pd.DataFrame(rows)[list(COLUMNS)].to_parquet(folder / "tiles.parquet")
    settings = {"kind": "whole", "scale": 1.0} if kind == "whole" else {"kind": "tiles", "tile": 64}
    (folder / "recipe.json").write_text(json.dumps({"version": VERSION, "settings": settings, "fingerprint": ""}))
    return Store.open(folder)


def dataset(store: Store, **changes: Any) -> CropDataset:
    options = AugmentOptions(rotate=30, scale=(0.8, 1.2), light=0.0)
    settings: dict[str, Any] = {"crop": 64, "count": 20, "bins": 2, "seed": 0, **changes}
    preprocess = settings.pop("preprocess", Preprocess())
    target = settings.pop("target", targets.build("foreground"))
    return CropDataset(store, store.tiles, target, preprocess, settings.pop("options", options), **settings)


@pytest.mark.parametrize("kind", ["whole", "grid"])
def test_an_example_is_a_function_of_its_key_in_any_process(tmp_path: Path, kind: str) -> None:
    store = write_store(tmp_path / "store", kind)
    here = [dataset(store)[(1, index)] for index in range(20)]
    loader = DataLoader(dataset(store), batch_size=5, sampler=EpochSampler(20, 1), num_workers=2)
    there = torch.cat([batch["image"] for batch in loader])
    assert torch.equal(torch.stack([example["image"] for example in here]), there)
    assert not torch.equal(dataset(store)[(2, 0)]["image"], here[0]["image"])


def test_truth_lies_on_the_pixels_and_padding_weighs_nothing(tmp_path: Path) -> None:
    data = dataset(write_store(tmp_path / "store", "grid"))
    for index in range(20):
        example = data[(0, index)]
        assert example["image"].shape == (3, 64, 64)
        assert example["image"].dtype == torch.uint8
        red, truth, weight = example["image"][0], example["truth"][0], example["weight"][0]
        sure = (red == 0) | (red == 255)  # outside of the tile, truth is mirrored as the pixels are
        assert ((red == 255) == (truth > 0))[sure].float().mean() > 0.97
        assert (weight[sure] > 0).any()


def test_vectors_to_centres_are_those_without_mirroring(tmp_path: Path) -> None:
    """The centre of a nucleus and its mirror image together lies outside of both: whole nuclei pointed to the edge."""
    store = write_store(tmp_path / "store", "whole", 1)
    target = targets.build("flow")
    plain = AugmentOptions(flip=0, quarter=False)
    whole = target.encode(np.asarray(store.masks("s0")))
    data = dataset(store, target=target, options=plain, crop=160, count=8)
    for index in range(8):
        example = data[(0, index)]
        real = example["weight"][0].numpy() > 0
        assert real.sum() == 80 * 100
        assert np.array_equal(example["truth"].numpy()[:, real], whole.reshape(3, -1))


def test_weights_between_nuclei_are_those_without_mirroring(tmp_path: Path) -> None:
    """Where a crop reached beyond the image, the image's edge was an outline of the nuclei that it cuts."""
    store = write_store(tmp_path / "store", "whole", 1)
    labels = np.zeros((80, 100), np.uint16)
    labels[30:50, 0:4], labels[30:50, 5:14], labels[52:80, 10:20], labels[60:80, 22:30] = 1, 2, 3, 4
    np.save(tmp_path / "store" / "masks" / "s0.npy", labels)
    store = Store.open(tmp_path / "store")
    weigh = WeightMap()
    data = dataset(store, options=AugmentOptions(flip=0, quarter=False), weight_map=weigh, crop=160, count=4)
    for index in range(4):
        weight = data[(0, index)]["weight"][0].numpy()
        assert np.array_equal(weight[weight > 0], weigh(labels).ravel())


def test_what_repeats_a_slides_edge_is_never_learned(tmp_path: Path) -> None:
    """Tile 1 of each slide has 16 rows beyond the slide: they must not come in as tissue with weight."""
    store = write_store(tmp_path / "store", "grid")
    plain = AugmentOptions(flip=0, quarter=False)
    data = dataset(store, options=plain, count=12)
    rows = [data.rows.iloc[row]["index"] for row in data._rows_of(0)]
    for index, row in enumerate(rows):
        covered = data[(0, index)]["weight"].sum()
        assert covered == (64 * 64 if row == 0 else 48 * 64)


def test_instances_and_weight_map_come_when_the_loss_asks(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", "whole")
    target = targets.build("ternary")
    loss = losses.build({"varce": 1.0, "sigma": 5.0}, target)
    assert loss.needs == {"instances", "weight_map"}
    data = dataset(store, target=target, needs=loss.needs, weight_map=loss.weight_map)
    example = data[(0, 0)]
    assert set(np.unique(example["instances"])) <= {0, 1, 2}
    assert example["weight"].max() > 1
    assert "instances" not in dataset(store)[(0, 0)]


def test_clahe_sees_the_whole_image_before_the_crop(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", "whole")
    preprocess = Preprocess(clahe=2.0)
    plain = AugmentOptions(flip=0, quarter=False)
    data = dataset(store, preprocess=preprocess, options=plain, crop=32)
    row = int(data._rows_of(0)[0])
    whole = preprocess.pixels(np.asarray(store.pixels(data.rows.iloc[row].sample_id)))
    crop = data[(0, 0)]["image"].numpy().transpose(1, 2, 0)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (32, 32, 3))[:, :, 0]
    assert (windows == crop).all(axis=(2, 3, 4)).any()


@pytest.mark.parametrize("option", ["mosaic", "copy_paste"])
def test_mixed_crops_are_functions_of_their_key_and_carry_their_labels(tmp_path: Path, option: str) -> None:
    store = write_store(tmp_path, "whole")
    plain = AugmentOptions(flip=0.0, quarter=False)
    mixed = AugmentOptions(flip=0.0, quarter=False, **{option: 1.0})
    made, again = (dataset(store, options=mixed, crop=48) for _ in range(2))
    before = dataset(store, options=plain, crop=48)
    changed = 0
    for index in range(20):
        example = made[(0, index)]
        assert torch.equal(example["image"], again[(0, index)]["image"])
        red = example["image"][0].numpy()
        assert (example["truth"][0].numpy()[red == 255] == 1).all()
        changed += not torch.equal(example["image"], before[(0, index)]["image"])
    assert changed >= (18 if option == "mosaic" else 3)


@pytest.mark.parametrize("option", ["mosaic", "copy_paste"])
def test_a_mix_up_probability_that_is_inverted(tmp_path: Path, option: str) -> None:
    """The fifth bug of winning code (`random() > p`): of what is mixed at 1, about a quarter must be at .25."""
    store = write_store(tmp_path, "whole")
    made = {
        share: dataset(store, options=AugmentOptions(flip=0.0, quarter=False, **{option: share}), crop=48, count=200)
        for share in (0.0, 0.25, 1.0)
    }
    plain, some, every = ([data[(0, index)]["image"] for index in range(200)] for data in made.values())
    at_most = [index for index in range(200) if not torch.equal(every[index], plain[index])]
    changed = [index for index in range(200) if not torch.equal(some[index], plain[index])]
    assert set(changed) <= set(at_most)
    assert len(at_most) >= (195 if option == "mosaic" else 80)
    assert 0.15 < len(changed) / len(at_most) < 0.35


def test_enhanced_images_are_kept_within_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_store(tmp_path / "store", "whole", count=4)
    size = store.pixels("s0").nbytes
    monkeypatch.setattr("histofold.tiles.dataset.KEPT", 2 * size + 1)
    data = dataset(store, preprocess=Preprocess(clahe=2.0))
    for row in (0, 1, 2, 1):
        data._pixels(row)
    assert list(data._enhanced) == [("s1", -1), ("s2", -1)]
    monkeypatch.setattr("histofold.tiles.dataset.KEPT", size - 1)
    data._pixels(3)
    assert list(data._enhanced) == [("s3", -1)]  # one is always there


@pytest.mark.parametrize(("told", "labels", "expected"), [(True, 1, True), (False, 2, False)])
def test_whoever_knows_says_whether_labels_are_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool, labels: int, expected: bool
) -> None:
    store = write_store(tmp_path / "store", "whole", 1)
    np.save(tmp_path / "store" / "masks" / "s0.npy", np.minimum(store.masks("s0"), labels))
    store = Store.open(tmp_path / "store")
    heard = []

    def listening(*args: Any, instances: bool) -> Any:
        heard.append(instances)
        return warp(*args, instances=instances)

    monkeypatch.setattr("histofold.tiles.dataset.warp", listening)
    _ = dataset(store, instances=told)[(0, 0)]
    assert heard == [expected]
