"""Which arithmetic the matrix products use."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype for `torch.autocast`; float32 means none.

    bf16 has float32's range with 8 bits of precision: no scaling of the loss is needed. fp16 has 11 bits but ends at
    65,504 and loses gradients below 6e-8, so its loss is scaled (`torch.amp.GradScaler`). Without hardware for it bf16
    is emulated and slower than fp32, so "auto" looks first: bf16 on GPUs from NVIDIA's Ampere on and on CPUs with AMX
    or AVX-512 BF16 (three times as fast as fp32 for nano_32; docs/speed.md), fp16 on older GPUs, fp32 elsewhere.
    """
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Within it, matrix products and attention use that dtype; what needs range or precision stays in float32."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)
