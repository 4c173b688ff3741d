"""One step of any model, the same for all: what the clock and the memory meter run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vitscratch.bench.peers import CHECKPOINTED, OURS, build_peer
from vitscratch.config import ViTConfig
from vitscratch.training import adamw

Dtype = Literal["fp32", "bf16"]
DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Work:
    """What every model does in a benchmark: train or infer, on how many pictures of noise, where, and how precisely.

    bf16 is autocast over float32 weights.
    """

    config: ViTConfig
    training: bool
    batch_size: int
    device: str = "cpu"
    dtype: Dtype = "fp32"

    def batch(self) -> tuple[Tensor, Tensor]:
        """Pictures (b, c, H, W) and labels (b), the same each time."""
        generator = torch.Generator().manual_seed(0)
        size = self.config.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        images = torch.randn(self.batch_size, self.config.in_channels, height, width, generator=generator)
        labels = torch.randint(self.config.num_classes, (self.batch_size,), generator=generator)
        return images.to(self.device), labels.to(self.device)

    @property
    def flops(self) -> int:
        """Nominal FLOPs of a step: the architecture's forward pass, and twice that again for the backward pass."""
        return self.config.flops * self.batch_size * (3 if self.training else 1)

    def executed_flops(self, peer: str) -> int:
        """Those that a model executes: nobody needs the pictures' gradient, ours spares queries in the last block,
        and with activation checkpointing all other blocks run forwards twice, up to the MLP's last layer."""
        forward = self.config.executed_flops if peer in (OURS, CHECKPOINTED) else self.config.flops
        if not self.training:
            return forward * self.batch_size
        costs = {cost.part: cost.flops for cost in self.config.costs()}
        blocks = sum(flops for part, flops in costs.items() if part.startswith("blocks")) - costs["blocks: MLP"] // 2
        again = blocks // self.config.depth * (self.config.depth - 1) if peer == CHECKPOINTED else 0
        return (3 * forward - costs["patch embedding"] + again) * self.batch_size

    def of_two_blocks(self) -> "Work":
        """The same with two blocks at most."""
        return replace(self, config=replace(self.config, depth=min(2, self.config.depth)))


def make_step(work: Work, peer: str, images: Tensor, labels: Tensor, compiled: bool) -> Callable[[], Tensor]:
    """Build a model and what it repeats: a forward pass that returns logits, or a whole training step.

    Raises:
        ValueError: the model's logits have another shape than (b, classes).
    """
    torch.manual_seed(0)
    model = build_peer(peer, work.config).to(work.device).train(work.training)
    forward = torch.compile(model) if compiled else model
    autocast = torch.autocast(work.device, DTYPES[work.dtype], enabled=work.dtype != "fp32")

    def infer() -> Tensor:
        with torch.inference_mode(), autocast:
            return forward(images)

    if not work.training:
        return infer
    optimizer = adamw(model, learning_rate=1e-4, weight_decay=0.05)

    def train() -> Tensor:
        optimizer.zero_grad()
        with autocast:
            logits = forward(images)
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        return logits

    return train


def count_parameters(config: ViTConfig, peer: str) -> int:
    """Learned numbers of a peer's model; built without memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_peer(peer, config).parameters())
