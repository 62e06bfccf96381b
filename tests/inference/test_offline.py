"""What a notebook without a network gets: the predictor, and nothing of training or configuration."""

from __future__ import annotations

from typing import Any

HEAVY = ("hydra", "omegaconf", "lightning", "albumentations", "pandas", "sklearn", "matplotlib", "kaggle", "pyarrow")
CODE = f"""
import sys
import histofold.inference.predict, histofold.inference.ensemble, histofold.inference.stream
found = sorted(name for name in {HEAVY!r} if name in sys.modules)
found += sorted(n for n in sys.modules if n.startswith(("histofold.training", "histofold.evaluation")))
print(*found)
"""


def test_inference_imports_neither_training_nor_configuration(kit: Any) -> None:
    done = kit.run_python(CODE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
