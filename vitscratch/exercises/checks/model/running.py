"""The sizes that a model is tried at, how a student builds and calls it, and the shape of what comes out."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vitscratch.exercises.checks import encoder_block
from vitscratch.exercises.checks.anatomy import Sizes, grid
from vitscratch.exercises.checks.model.bank import HEAD, MISTAKES, NUDGES, POOLING
from vitscratch.exercises.checks.naming import named
from vitscratch.exercises.checks.student import WrongError, built, drawn, pick_tensor, run, shape_of
from vitscratch.exercises.exercise import Problem

SIZES: list[Sizes] = [
    dict(image_size=24, patch_size=8, in_channels=2, num_classes=11, embed_dim=14, depth=3, num_heads=2, mlp_dim=23),
    dict(image_size=20, patch_size=5, in_channels=3, num_classes=7, embed_dim=22, depth=4, num_heads=2, mlp_dim=13),
    dict(
        image_size=(14, 21), patch_size=7, in_channels=1, num_classes=3, embed_dim=35, depth=2, num_heads=5, mlp_dim=17
    ),
]
SIXTEEN: Sizes = {**SIZES[0], "image_size": 48, "patch_size": 16, "in_channels": 3}


def count(sizes: Sizes) -> int:
    """How many numbers a right one learns."""
    (rows, columns), width, classes = grid(sizes), sizes["embed_dim"], sizes["num_classes"]
    embedding = width * (sizes["in_channels"] * sizes["patch_size"] ** 2 + rows * columns + 3)
    return embedding + sizes["depth"] * encoder_block.count(sizes) + 2 * width + classes * (width + 1)


def model_code(sizes: Sizes) -> str:
    """How a student builds the model."""
    return built("VisionTransformer", sizes)


def call_code(sizes: Sizes, images: Tensor, model: str = "") -> str:
    """How a student calls the model."""
    return f"{model or f'awaken({model_code(sizes)})'}({drawn(images.shape, seed=len(images))})"


def table_told(sizes: Sizes, name: str, shape: tuple[int, ...]) -> str:
    """The shape of a table of positions, and the right one."""
    rows, columns = grid(sizes)
    before = shape[:-2] if math.prod(shape[:-2]) == 1 else (1,)
    right = (*before, rows * columns + 1, sizes["embed_dim"])
    return f"tuple({model_code(sizes)}.get_parameter({name!r}).shape) is {shape}; it should be {right}"


def call(model: nn.Module, images: Tensor, sizes: Sizes) -> Tensor:
    """The student's logits for these pictures."""
    shape = (len(images), sizes["num_classes"])
    with torch.no_grad():
        result = run(model, images.clone(), step=HEAD, code=call_code(sizes, images))
    logits = pick_tensor(result, shape)
    if logits is None:
        raise WrongError(_wrong_shape(call_code(sizes, images), result, shape))
    return logits


def _wrong_shape(code: str, result: Any, shape: tuple[int, int]) -> Problem:
    evidence = f"{code} returns {shape_of(result)}; it should return {shape}"
    if isinstance(result, Tensor) and result.ndim == 2 and result.shape[1] == shape[1]:
        return named(MISTAKES, "vit_first_picture", evidence)
    tokens_left = isinstance(result, Tensor) and result.ndim > 2
    return Problem(
        "You return another shape; it should be (batch, num_classes), also for one picture.",
        evidence,
        POOLING if tokens_left else HEAD,
        (NUDGES[POOLING], "One row of logits for each picture, also for one picture alone: no squeeze."),
    )
