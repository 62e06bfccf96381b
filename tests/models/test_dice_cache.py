"""The bits of DiCE units do not depend on whether Numba compiled their kernels or loaded them."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from numba.core.dispatcher import Dispatcher

from histofold.models import dice_kernels_backward, dice_kernels_fusion, dice_taps

SOURCE = Path(__file__).resolve().parents[2] / "src"
STEP = """
import hashlib
import torch
from histofold.models.dice import DiceUnit
torch.manual_seed(0)
unit = DiceUnit(8, 16, 64, 64)
x = torch.randn(2, 8, 64, 64, requires_grad=True)
y = unit(x)
y.backward(torch.randn_like(y))
with torch.inference_mode():
    z = unit.eval()(x)
for tensor in (y, z, x.grad, *(parameter.grad for parameter in unit.parameters())):
    print(hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize("module", [dice_taps, dice_kernels_backward, dice_kernels_fusion])
def test_every_loop_that_may_reorder_its_sum_is_inlined(module: ModuleType) -> None:
    """A loop that is called gives other bits in the process that compiles it than in later ones."""
    jitted = {name: value for name, value in vars(module).items() if isinstance(value, Dispatcher)}
    free = {name: value for name, value in jitted.items() if "reassoc" in value.targetoptions["fastmath"]}
    assert free
    assert [name for name, value in free.items() if not value.targetoptions.get("forceinline")] == []


@pytest.mark.slow
def test_a_first_step_that_compiles_gives_the_bits_of_the_next_process(tmp_path: Path) -> None:
    """The demo's first training differed from its repetition in the loss of its first epoch."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(SOURCE)}
    first, second = (
        subprocess.run([sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert any(tmp_path.rglob("*.nbi"))
    assert first == second
    assert len(first.split()) == 19
