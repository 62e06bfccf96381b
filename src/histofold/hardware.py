"""What this machine's processor computes well."""

from __future__ import annotations

import torch


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX): emulation would be slower."""
    checks = (getattr(torch.cpu, "_is_avx512_bf16_supported", None), getattr(torch.cpu, "_is_amx_tile_supported", None))
    return any(check is not None and check() for check in checks)


def gpu_has_bf16() -> bool:
    """Whether the current GPU multiplies bfloat16 in hardware (Ampere and newer)."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
