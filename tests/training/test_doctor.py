"""Healthy models pass every check; each planted mistake is caught by the check that is there for it."""

import inspect
import json
import math
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscratch import VisionTransformer, vit_nano_8
from vitscratch.training import doctor
from vitscratch.training.doctor import LADDER, Diagnosis

CLASSES, WIDTH, TOKENS = 5, 14, 6  # pictures of 2 x 9 x 6, patches of 3 x 3


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 22), nn.GELU(), nn.Linear(22, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Sound(nn.Module):
    """A ViT without mistakes; those with one below differ from it in the lines shown."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, WIDTH, 3, 3)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + TOKENS, WIDTH))
        self.blocks: Any = nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def tokens(self, images: Tensor) -> Tensor:
        return self.patches(images).flatten(2).mT

    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed

    def encode(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x

    def read(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x[:, 0]))

    def forward(self, images: Tensor) -> Any:
        return self.read(self.encode(self.embed(self.tokens(images))))


def batch(b: int = 11) -> tuple[Tensor, Tensor]:
    return torch.randn(b, 2, 9, 6), torch.arange(b) % CLASSES


# Sound models


class SmallCNN(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 7, 3, padding=1), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 13, 3, stride=2, padding=1),
            nn.BatchNorm2d(13), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(13, CLASSES),
        )  # fmt: skip


class LayerScale(Sound):
    """Branches start at 1e-5 of their size, positions and head at 0; dropout is high; a mask token is unused."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.pos_embed)
        self.gamma, self.mask_token = nn.Parameter(torch.full((WIDTH,), 1e-5)), nn.Parameter(torch.zeros(1, 1, WIDTH))

    def encode(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + F.dropout(self.gamma * (block(x) - x), 0.5, self.training)
        return x


class Recording(Sound):
    """Keeps tensors of the last pass, graph and all, and a frozen teacher that it does not want to own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.teacher = [nn.Linear(3, 3).requires_grad_(False)]

    def encode(self, x: Tensor) -> Tensor:
        self.seen = [x]
        return super().encode(x)


class DropsLayers(Sound):
    """Stochastic depth: in training a block is left out half of the time."""

    def encode(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if not self.training or random.random() < 0.5:
                x = block(x)
        return x


class FaintPosition(Sound):
    """Positions have so little say that float32 cannot tell it from rounding."""

    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + 1e-6 * self.pos_embed


class LogProbabilities(Sound):
    """Cross-entropy of log-probabilities is their cross-entropy: no mistake."""

    def read(self, x: Tensor) -> Tensor:
        return super().read(x).log_softmax(dim=1)


def used() -> nn.Module:
    """Has run before: gradients, and recorded tensors that deepcopy would refuse."""
    model = Recording()
    images, labels = batch()
    F.cross_entropy(model(images), labels).backward()
    return model


def trained() -> nn.Module:
    model = SmallCNN()
    optimizer, (images, labels) = torch.optim.Adam(model.parameters(), 0.02), batch()
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


def frozen_body() -> nn.Module:
    model = Sound()
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    model.blocks.requires_grad_(True)
    return model


HEALTHY: list[Callable[[], nn.Module]] = [
    Sound, SmallCNN, LayerScale, Recording, DropsLayers, FaintPosition, LogProbabilities, used, trained, frozen_body,
]  # fmt: skip


@pytest.mark.parametrize("build", HEALTHY, ids=lambda build: build.__name__)
def test_a_sound_model_passes_every_check(build: Callable[[], nn.Module]) -> None:
    found = doctor(build(), batch(), train_labels=torch.arange(23) % CLASSES)
    assert [result for result in found.results if result.status != "passed"] == []


def test_other_peoples_and_our_models_pass() -> None:
    from torchvision.models import VisionTransformer

    theirs = VisionTransformer(9, 3, 2, 2, 14, 22, num_classes=CLASSES, dropout=0.2)
    assert doctor(theirs, (torch.randn(17, 3, 9, 9), torch.arange(17) % CLASSES)).failures == ()
    digits = torch.randn(17, 1, 8, 8), torch.arange(17) % 10
    found = doctor(vit_nano_8(depth=2, dropout=0.1, attention_dropout=0.1), digits, patch_size=4)
    assert [result for result in found.results if result.status != "passed"] == []
    assert found["first_loss"].numbers["loss"] == pytest.approx(math.log(10), abs=1e-6)


def test_half_precision_is_looked_at_in_single() -> None:
    images, labels = batch()
    assert doctor(Sound().bfloat16(), (images.bfloat16(), labels)).failures == ()


def test_a_compiled_model_is_looked_at_uncompiled() -> None:
    assert doctor(torch.compile(Sound(), backend="eager"), batch()).failures == ()  # type: ignore[arg-type]


# Models with one mistake each


class TokenWithBatchAxis(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.ones(11, 1, WIDTH))

    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token, x], dim=1) + self.pos_embed


class PositionWithBatchAxis(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(11, 1 + TOKENS, WIDTH))


class TokenOfEachSlot(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.ones(32, 1, WIDTH))

    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token[: len(x)], x], dim=1) + self.pos_embed


class NoPosition(Sound):
    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)


class RandomPosition(Sound):
    def embed(self, x: Tensor) -> Tensor:
        return super().embed(x) + torch.randn(1, 1 + TOKENS, WIDTH)


class BlocksInList(Sound):
    def __init__(self) -> None:
        super().__init__()
        del self.blocks
        self.blocks = [Block(), Block()]


class LayersInDict(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.extra = {"proj": nn.Linear(WIDTH, WIDTH)}

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x + self.extra["proj"](x))


class TensorForParameter(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(WIDTH, requires_grad=True)

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x) * self.scale


class NotAModule:
    def __init__(self) -> None:
        self.fc = nn.Linear(WIDTH, WIDTH)


class LayerInPlainObject(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.mixer = NotAModule()

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x + self.mixer.fc(x))


class LayerInClosure(Sound):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(WIDTH, WIDTH)
        self.mix = lambda x: x + layer(x)

    def encode(self, x: Tensor) -> Tensor:
        return super().encode(self.mix(x))


GLOBAL_SCALE = torch.ones(WIDTH, requires_grad=True)


class GlobalTensor(Sound):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x) * GLOBAL_SCALE


class Detached(Sound):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x.detach())


class NoGradInBlock(Sound):
    def encode(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.blocks[0](x)
        return self.blocks[1](x)


class NoGradAtAll(Sound):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class LastBlockSkipped(Sound):
    def encode(self, x: Tensor) -> Tensor:
        return self.blocks[0](x)


class StreamDropped(Sound):
    """Every block is fed the embedding: only the last one counts."""

    def encode(self, x: Tensor) -> Tensor:
        return [block(x) for block in self.blocks][-1]


class DetachedInTraining(Sound):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x.detach() if self.training else x)


class DeadLayer(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.dead = nn.Linear(WIDTH, WIDTH)

    def read(self, x: Tensor) -> Tensor:
        return super().read(x + F.relu(self.dead(x) - 100))


class BadGradient(Sound):
    def encode(self, x: Tensor) -> Tensor:
        return super().encode(x + (x - x).norm(dim=-1, keepdim=True).square().sqrt())


class TwoOutputsInTraining(Sound):
    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class SoftmaxInModel(Sound):
    def read(self, x: Tensor) -> Tensor:
        return super().read(x).softmax(dim=1)


class SigmoidInModel(Sound):
    def read(self, x: Tensor) -> Tensor:
        return super().read(x).sigmoid()


class ReluBehindHead(Sound):
    def read(self, x: Tensor) -> Tensor:
        return super().read(x).relu()


class DropoutAlwaysOn(Sound):
    def tokens(self, images: Tensor) -> Tensor:
        return F.dropout(super().tokens(images), 0.1)


class ChangesItsInput(Sound):
    def forward(self, images: Tensor) -> Tensor:
        images -= images.mean()
        return super().forward(images)


class NormOfBatch(SmallCNN):
    def __init__(self) -> None:
        super().__init__()
        self[1] = nn.BatchNorm2d(7, track_running_stats=False)


class BatchMeanRemoved(Sound):
    def tokens(self, images: Tensor) -> Tensor:
        x = super().tokens(images)
        return x - x.mean(dim=0)


class AttentionOverBatch(Sound):
    """The class token attends to the class tokens of other pictures, which are the same: it never sees a picture."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            block.attn.batch_first = False


class MeanAfterAttentionOverBatch(AttentionOverBatch):
    def read(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x[:, 1:].mean(dim=1)))


class TokenBeforeBlocks(Sound):
    def read(self, x: Tensor) -> Tensor:
        return super().read(self.cls_token.expand(len(x), -1, -1) + 0 * x[:, :1])


class AttentionCutOff(Sound):
    def embed(self, x: Tensor) -> Tensor:
        return super().embed(x)[:, 1:]

    def encode(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block.mlp(block.norm2(x + block.norm1(x)))
        return x


class RedChannelOnly(Sound):
    def tokens(self, images: Tensor) -> Tensor:
        return super().tokens(torch.stack([images[:, 0], images[:, 0]], dim=1))


class EvalIgnored(Sound):
    def train(self, mode: bool = True) -> "EvalIgnored":
        return super().train(True)


class WildHead(Sound):
    def __init__(self) -> None:
        super().__init__()
        nn.init.normal_(self.head.weight, std=5.0)


class OtherHead(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 1000)


class Features(Sound):
    def read(self, x: Tensor) -> Tensor:
        return x


class Structure(Sound):
    def forward(self, images: Tensor) -> Any:
        return {"logits": super().forward(images)}


class NanWeight(Sound):
    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.patches.bias, torch.nan)


class OtherSize(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, WIDTH, 2, 2)


class HeadOfOtherKind(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.head.double()


class GradientReversed(Sound):
    def read(self, x: Tensor) -> Tensor:
        logits = super().read(x)
        return 2 * logits.detach() - logits  # the same value, and its gradient the wrong way round


class Squashed(Sound):
    def read(self, x: Tensor) -> Tensor:
        return super().read(x).tanh()


def all_frozen() -> nn.Module:
    return Sound().requires_grad_(False)


def nothing_registered() -> nn.Module:
    model = Sound()
    hidden = [model]
    outer = nn.Module()
    outer.parts = hidden
    outer.forward = lambda images: hidden[0](images)  # type: ignore[method-assign]
    return outer


BROKEN: list[tuple[Callable[[], nn.Module], str, str]] = [
    (TokenWithBatchAxis, "batch_sizes", r"a batch of 1 fails.*look at cls_token \(11, 1, 14\)"),
    (PositionWithBatchAxis, "batch_sizes", r"a batch of 1 gives 11 rows.*pos_embed \(11, 7, 14\)"),
    (TokenOfEachSlot, "neighbours", r"turning the batch round.*cls_token \(32, 1, 14\)"),
    (NormOfBatch, "neighbours", "its neighbours change.*first at the output of 1"),
    (BatchMeanRemoved, "neighbours", "its neighbours change.*first at the output of blocks.0.norm1"),
    (MeanAfterAttentionOverBatch, "neighbours", r"its neighbours change.*first at the output of blocks\.0\.attn"),
    (AttentionOverBatch, "picture_used", "different pictures give the same logits"),
    (NoPosition, "positions", r"shuffling the patches \(3 x 3 pixels, from the first convolution\) leaves the logits"),
    (RandomPosition, "repeatable", "first at the output of blocks.0.norm1"),
    (DropoutAlwaysOn, "repeatable", "two passes in eval mode differ"),
    (ChangesItsInput, "repeatable", "changes the pictures it is given"),
    (BlocksInList, "registered", r"blocks\[0\] \(Block, 1,\d+ parameters\), blocks\[1\]"),
    (LayersInDict, "registered", r"extra\['proj'\] \(Linear, 210 parameters\)"),
    (TensorForParameter, "registered", r"scale \(14,\)"),
    (LayerInPlainObject, "registered", r"mixer\.fc \(Linear"),
    (LayerInClosure, "registered", r"mix \(Linear"),
    (GlobalTensor, "registered", r"a tensor \(14,\) from outside the model"),
    (nothing_registered, "registered", r"parts\[0\] \(Sound"),
    (Detached, "gradients", "no gradient reaches cls_token, pos_embed, patches"),
    (NoGradInBlock, "gradients", r"no gradient reaches cls_token.* \(16 of 32\)"),
    (NoGradAtAll, "gradients", r"no gradient reaches cls_token.* \(32 of 32\)"),
    (LastBlockSkipped, "gradients", r"no gradient reaches blocks\.1\.norm1\.weight.* \(12 of 32\)"),
    (StreamDropped, "gradients", r"no gradient reaches blocks\.0\.norm1\.weight.* \(12 of 32\)"),
    (DetachedInTraining, "gradients", r"no gradient reaches cls_token"),
    (DeadLayer, "gradients", r"the gradient of dead\.weight, dead\.bias is exactly 0"),
    (BadGradient, "gradients", "is nan or infinite"),
    (TwoOutputsInTraining, "gradients", "a pass in train mode fails"),
    (all_frozen, "gradients", "all 32 parameters are frozen"),
    (SoftmaxInModel, "probabilities", "each row sums to 1"),
    (SigmoidInModel, "probabilities", r"all outputs lie in 0\.\.1"),
    (ReluBehindHead, "probabilities", "some are exactly 0"),
    (TokenBeforeBlocks, "picture_used", "different pictures give the same logits"),
    (AttentionCutOff, "picture_used", "of the picture's area has no influence"),
    (RedChannelOnly, "picture_used", "channel 1 has no influence"),
    (EvalIgnored, "modes", r"eval\(\) leaves the model, patches.* in training mode"),
    (WildHead, "first_loss", r"guessing one of 5 classes costs ln 5 = 1\.609; logits have std"),
    (OtherHead, "logits", "1000 logits for 5 classes"),
    (Features, "logits", r"returns torch.float32 \(3, 7, 14\)"),
    (Structure, "logits", "returns dict"),
    (NanWeight, "logits", "nan or infinity among the logits"),
    (OtherSize, "logits", r"images \(11, 2, 9, 6\) torch.float32 fails with RuntimeError"),
    (HeadOfOtherKind, "logits", "fails with RuntimeError"),
    (GradientReversed, "overfits", "no better than guessing without looking"),
    (Squashed, "overfits", "better than guessing, but stuck"),
]  # fmt: skip


def look(build: Callable[[], nn.Module], **options: Any) -> Diagnosis:
    return doctor(build(), batch(), num_classes=CLASSES, steps=12, **options)


@pytest.mark.parametrize(("build", "check", "evidence"), BROKEN, ids=[build.__name__ for build, _, _ in BROKEN])
def test_a_planted_mistake_is_caught_by_its_check(build: Callable[[], nn.Module], check: str, evidence: str) -> None:
    found = look(build)
    result = found[check]
    assert result.status == "failed", found.table()
    assert re.search(evidence, result.evidence), result.evidence
    assert result.meaning and result.advice and f"{check} failed: {result.evidence}" in found.table()


# Batches with one mistake each


def labelled(labels: Tensor, b: int = 11) -> tuple[Tensor, Tensor]:
    return torch.randn(b, 2, 9, 6), labels


def with_nan() -> tuple[Tensor, Tensor]:
    images, labels = batch()
    images[3, 1, 2, 2] = torch.nan
    return images, labels


def with_copies(copies: int = 3) -> tuple[Tensor, Tensor]:
    """So many pictures, one after the other from number 7 on, are those of the numbers from 1 on."""
    images, labels = batch()
    images[7 : 7 + copies] = images[1 : 1 + copies]
    return images, labels


RIGHT = torch.arange(11) % CLASSES
BATCHES: list[tuple[str, Callable[[], Any], dict[str, Any], str, str]] = [
    ("bytes", lambda: (torch.randint(256, (11, 2, 9, 6), dtype=torch.uint8), RIGHT), {}, "pictures", "torch.uint8"),
    ("no batch axis", lambda: (torch.randn(2, 9, 6), RIGHT[:2]), {}, "pictures", r"\(2, 9, 6\); expected a tensor"),
    ("a list", lambda: ([torch.randn(2, 9, 6)] * 2, RIGHT[:2]), {}, "pictures", "the images are list"),
    ("nan", with_nan, {}, "pictures", "in 1 of 11 pictures, first in number 3"),
    ("one picture", lambda: (batch()[0][:1].expand(11, -1, -1, -1), RIGHT), {}, "pictures", "all 11 pictures are the"),
    ("0..255", lambda: (255 * torch.rand(11, 2, 9, 6), RIGHT), {}, "normalised", r"look like 0\.\.255"),
    ("0..1", lambda: (torch.rand(11, 2, 9, 6), RIGHT), {}, "normalised", r"look like 0\.\.1"),
    ("normalised twice", lambda: (4 * batch()[0] - 2, RIGHT), {}, "normalised", "expected about mean 0 and std 1"),
    ("flat channel", lambda: (batch()[0] * torch.tensor([1, 0])[:, None, None], RIGHT), {}, "normalised", "channel 1"),
    ("blank", lambda: (torch.randn(11, 2, 1, 1).expand(-1, -1, 9, 6).clone(), RIGHT), {},
     "normalised", "11 of 11 pictures are one plain colour"),
    ("counted from 1", lambda: labelled(RIGHT + 1), {}, "labels", "from 1 to 5, but 5 classes need 0 to 4"),
    ("too many", lambda: labelled(RIGHT), {"train_labels": torch.arange(23)}, "labels", "from 0 to 22"),
    ("negative", lambda: labelled(RIGHT - 1), {}, "labels", "from -1 to 3"),
    ("one-hot", lambda: labelled(F.one_hot(RIGHT)), {}, "labels", r"torch.int64 \(11, 5\); expected"),
    ("column", lambda: labelled(RIGHT[:, None]), {}, "labels", r"\(11, 1\)"),
    ("floats", lambda: labelled(RIGHT.float()), {}, "labels", r"torch.float32 \(11,\)"),
    ("contradiction", with_copies, {}, "labels",
     "pictures 1 and 7 are identical, but labelled 1 and 2; 3 such pictures of 11"),
    ("one class", lambda: labelled(0 * RIGHT + 2), {}, "classes", "all 11 labels of the batch are 2"),
    ("sorted", lambda: labelled(0 * RIGHT), {"train_labels": RIGHT.repeat(2)}, "classes", "all 11 labels"),
    ("first classes", lambda: labelled(RIGHT % 3), {"train_labels": RIGHT % 3}, "classes", "2 of 5 .*: 3, 4"),
    ("names", lambda: labelled(RIGHT % 4), {"train_labels": RIGHT % 4, "class_names": list("abcde")}, "classes", "'e'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "options", "check", "evidence"), [row[1:] for row in BATCHES], ids=[r[0] for r in BATCHES]
)
def test_a_planted_mistake_in_the_data_is_caught_by_its_check(
    make: Callable[[], Any], options: dict[str, Any], check: str, evidence: str
) -> None:
    found = doctor(Sound(), make(), steps=3, **options)
    assert found[check].status == "failed" and re.search(evidence, found[check].evidence), found.table()
    before = [result for result in found.results[: [rung.name for rung in LADDER].index(check)]]
    assert all(result.status == "passed" for result in before), "the first failure is the mistake"


def test_a_pair_of_copies_with_two_labels_is_told_and_not_learned_by_heart() -> None:
    found = doctor(Sound(), with_copies(1))
    assert found.passed, found.table()
    assert "; pictures 1 and 7 are identical, but labelled 1 and 2: not learned" in found["labels"].evidence
    assert found["overfits"].numbers["pictures"] == 10 and "on 10 pictures" in found["overfits"].evidence
    assert doctor(Sound(), batch())["overfits"].numbers["pictures"] == 11


def test_labels_without_their_pictures_are_refused_by_name() -> None:
    found = doctor(Sound(), (torch.randn(11, 2, 9, 6), RIGHT[:7]), steps=3)
    assert found["labels"].evidence == "the labels are torch.int64 (7,); expected torch.int64 (11,)"


@pytest.mark.parametrize(
    ("wrong", "options", "message"),
    [
        ((torch.randn(2, 2, 9, 6),), {}, r"batch has 1 parts; expected \(images, labels\)"),
        ((torch.randn(0, 2, 9, 6), RIGHT[:0]), {}, "at least one picture"),
        (batch(), {"num_classes": 4, "class_names": list("abcde")}, "num_classes 4 but 5 class_names"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(wrong: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        doctor(Sound(), wrong, **options)


# The ladder


def test_every_check_has_a_planted_mistake() -> None:
    planted = {check for _, check, _ in BROKEN} | {row[3] for row in BATCHES}
    assert planted == {rung.name for rung in LADDER}
    assert len(BROKEN) + len(BATCHES) >= 60


def test_what_rests_on_a_failure_is_skipped_and_says_so() -> None:
    images, labels = batch()
    found = doctor(Sound(), (images.byte(), labels))
    reasons = {result.name: result.evidence for result in found.results if result.status == "skipped"}
    assert reasons["logits"] == "says nothing while 'pictures' has not passed"
    assert reasons["overfits"] == "says nothing while 'labels' has not passed"
    assert found["registered"].status == found["modes"].status == "passed"
    assert not found.passed and [result.name for result in found.failures] == ["pictures"]


def test_few_labels_of_one_class_prove_nothing() -> None:
    found = doctor(Sound(), (torch.randn(3, 2, 9, 6), torch.tensor([2, 2, 2])), num_classes=CLASSES)
    assert found.passed and found["classes"].status == found["overfits"].status == "skipped"
    rare = torch.tensor([0] * 9999 + [1, 2, 3, 4])  # nearly every batch has one class, though nothing is wrong
    assert doctor(Sound(), labelled(0 * RIGHT), train_labels=rare).passed


def test_one_picture_is_enough_to_look() -> None:
    assert doctor(Sound(), batch(1)).passed


def test_too_few_steps_are_no_failure_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitscratch.training.doctor import learning_checks

    monkeypatch.setitem(learning_checks.BUDGET, "cpu", 1.0)
    found = doctor(Sound(), batch())["overfits"]
    assert (found.status, found.numbers["steps"], found.numbers["pictures"]) == ("passed", 5, 2)
    assert "left out as too slow here (steps=80 does it)" in found.evidence
    assert doctor(Sound(), batch(), steps=5)["overfits"].status == "failed"
    assert doctor(Squashed(), batch())["overfits"].status == "passed"  # what a short look cannot see
    assert doctor(GradientReversed(), batch())["overfits"].status == "failed"


def test_a_large_model_is_looked_at_with_fewer_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitscratch.training.doctor import model_checks

    monkeypatch.setattr(model_checks, "_picture_flops", lambda case: 35_000_000_000)
    found = doctor(Sound(), batch())
    assert found.passed and found["batch_sizes"].evidence == "batches of 1, 3 work"
    assert (found["overfits"].numbers["pictures"], found["overfits"].numbers["steps"]) == (2, 5)
    assert "looked at 2 pictures at a time, as one takes 35 GFLOP" in found.table()
    assert "learned 2 of 11 pictures for 5 steps (2.1e+03 GFLOP)" in found.table()


def test_flops_are_counted() -> None:
    model = nn.Sequential(nn.Conv2d(2, 7, 3, 3), nn.Flatten(), nn.Linear(7 * 6, CLASSES))
    numbers = doctor(model, batch(), steps=1)["logits"].numbers
    assert numbers["picture_flops"] == 2 * (7 * 6 * 2 * 9 + 42 * CLASSES)


def test_patches_are_guessed_when_nothing_tells_their_size() -> None:
    found = doctor(SmallCNN(), batch(), steps=1)["positions"]
    assert "4 x 3 pixels, quarters of the picture" in found.evidence
    assert doctor(NoPosition(), batch(), patch_size=(3, 2), steps=1)["positions"].status == "passed", "cuts patches"
    assert doctor(NoPosition(), batch(), patch_size=(3, 3), steps=1)["positions"].status == "failed"
    assert doctor(Sound(), batch(), patch_size=(9, 6), steps=1)["positions"].status == "skipped"


def test_the_report_is_aligned_and_json() -> None:
    found = doctor(NoPosition(), batch(), steps=2)
    lines = found.table().splitlines()
    assert len({line.index(" passed ") for line in lines if " passed " in line and "  " in line[:20]}) == 1
    assert [line.split()[0] for line in lines[: len(LADDER)]] == [rung.name for rung in LADDER]
    assert max(map(len, lines[len(LADDER) :])) < 170
    loaded = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert loaded["passed"] is False and [r["name"] for r in loaded["results"]] == [rung.name for rung in LADDER]
    assert len(loaded["results"][-1]["numbers"]["losses"]) == 2


# Nothing is left behind


def everything(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """All that the doctor must not touch."""
    return {
        "parameters": {name: parameter.detach().clone() for name, parameter in model.named_parameters()},
        "identities": [id(parameter) for parameter in model.parameters()],
        "versions": [parameter._version for parameter in model.parameters()],
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "gradient values": [p.grad.clone() for p in model.parameters() if p.grad is not None],
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "modes": [layer.training for layer in model.modules()],
        "hooks": [list(layer._forward_hooks.values()) for layer in model.modules()],
        "attributes": [sorted(vars(layer)) for layer in model.modules()],
        "batch": [part.clone() for part in batch],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_same(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, Tensor):
        assert torch.equal(one, other) and one.dtype == other.dtype, where
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert one == other, where


class Everything(Sound):
    """Statistics, dropout, a counter, a frozen part, a mixed mode, a hook and random numbers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.calls = nn.BatchNorm2d(2), 0
        self.norm.requires_grad_(False)
        self.blocks[0].eval()
        self.blocks[1].register_forward_hook(lambda layer, inputs, output: None)

    def tokens(self, images: Tensor) -> Tensor:
        self.calls += 1
        random.random(), np.random.rand()
        return F.dropout(super().tokens(self.bn(images)), 0.1, self.training)


@pytest.mark.parametrize("build", [Everything, SmallCNN, LayerInClosure, GlobalTensor, RandomPosition, ChangesItsInput])
def test_nothing_is_left_behind(build: Callable[[], nn.Module]) -> None:
    model, given = build(), batch()
    F.cross_entropy(model(given[0].clone()), given[1]).backward()
    GLOBAL_SCALE.grad = None
    before = everything(model, given)
    inspect.unwrap(doctor)(model, given, steps=3)  # beartype draws from Python's generator when it checks a list
    assert_same(everything(model, given), before)
    assert GLOBAL_SCALE.grad is None and torch.equal(GLOBAL_SCALE, torch.ones(WIDTH))
    assert getattr(model, "calls", 1) == 1


def test_nothing_is_left_behind_by_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle: the error comes through, and all is as it was."""
    model, given = Everything(), batch()
    before = everything(model, given)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        inspect.unwrap(doctor)(model, given)
    assert_same(everything(model, given), before)


def test_it_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert doctor(Sound(), batch()).passed
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert doctor(SmallCNN(), batch(), steps=1)["gradients"].status == "passed"


def test_the_same_seed_finds_the_same_numbers() -> None:
    model, given = Sound(), batch()
    one, other, third = (doctor(model, given, seed=seed, steps=2).to_json() for seed in (3, 3, 4))
    assert one == other != third


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_same_is_found() -> None:
    images, labels = batch()
    state = torch.cuda.get_rng_state()
    assert doctor(Sound().cuda(), (images, labels)).failures == ()
    assert doctor(SmallCNN().cuda(), (images.cuda(), labels.cuda())).failures == ()
    for build, check in ((NoPosition, "positions"), (TokenOfEachSlot, "neighbours"), (BlocksInList, "registered")):
        assert doctor(build().cuda(), batch(), steps=2)[check].status == "failed"
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_new_head_for_few_classes_is_no_sigmoid(classes: int) -> None:
    """Two small logits lie in 0..1 by chance, in every fourth draw or so."""
    from vitscratch.transfer import replace_head

    torch.manual_seed(0)
    model = VisionTransformer(8, 4, 1, 7, 12, 2, 2, 20)
    replace_head(model, classes)
    batch = torch.randn(16, 1, 8, 8), torch.arange(16) % classes
    for seed in range(12):
        diagnosis = doctor(model, batch, num_classes=classes, seed=seed, steps=5)
        assert "probabilities" not in [result.name for result in diagnosis.failures], seed
