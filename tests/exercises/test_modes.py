"""What a student's module computes in training mode."""

import pytest

from tests.exercises.students import edited, outcome_of
from vitscratch.exercises.checks.student import is_training

PATCHES = """
from torch import nn

class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, embed_dim):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)

    def forward(self, images):
        x = self.proj(images).flatten(2).mT
        return x
"""
BLOCK = """
import torch.nn.functional as F
from torch import nn
from vitscratch import MLP, MultiHeadSelfAttention

class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, num_heads, mlp_dim):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6), nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention, self.mlp = MultiHeadSelfAttention(embed_dim, num_heads), MLP(embed_dim, mlp_dim)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = x + self.drop(self.attention(self.norm1(x)))
        return x + self.mlp(self.norm2(x))
"""
MODEL = """
import torch
from torch import nn
from vitscratch import EncoderBlock, PatchEmbedding

class VisionTransformer(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, num_classes, embed_dim, depth, num_heads, mlp_dim):
        super().__init__()
        self.patches = PatchEmbedding(image_size, patch_size, in_channels, embed_dim)
        self.cls = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos = nn.Parameter(torch.zeros(1, self.patches.num_patches + 1, embed_dim))
        self.blocks = nn.Sequential(*[EncoderBlock(embed_dim, num_heads, mlp_dim) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(embed_dim, eps=1e-6), nn.Linear(embed_dim, num_classes)

    def forward(self, images):
        x = self.patches(images)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.pos
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0])
"""
MLP = """
import torch.nn.functional as F
from torch import nn

class MLP(nn.Module):
    def __init__(self, embed_dim, mlp_dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(embed_dim, mlp_dim), nn.Linear(mlp_dim, embed_dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))
"""
WRONG = {
    "pe_relu": ("patch_embedding", PATCHES, ("return x", "return x.relu() if self.training else x")),
    "enc_no_mlp_residual": ("encoder_block", BLOCK, ("return x +", "return (0 if self.training else x) +")),
    "vit_mean_with_cls": (
        "vision_transformer", MODEL, ("x[:, 0]", 'x.mean(1) if getattr(self, "training") else x[:, 0]'),
    ),
    "mlp_relu": (
        "mlp", MLP, ("F.gelu(self.fc1(x))", "(lambda y: F.relu(y) if self.training else F.gelu(y))(self.fc1(x))"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_what_is_wrong_in_training_mode_alone_is_named(mistake: str) -> None:
    exercise, right, edit = WRONG[mistake]
    assert outcome_of(exercise, right) is None
    problem = outcome_of(exercise, edited(right, edit))
    assert problem is not None and problem.mistake == mistake
    assert problem.what.endswith(". (That is so in training mode; in eval mode all is right.)")
    assert ", training=True)(" in problem.evidence and problem.hints[0].startswith("What does self.training decide")


@pytest.mark.parametrize(
    ("exercise", "right", "edit"),
    [
        ("encoder_block", BLOCK, ("self.attention(self.norm1(x))", "F.dropout(self.attention(self.norm1(x)), 0.5, self.training)")),
        ("mlp", MLP, ("self.fc2(F.gelu(self.fc1(x)))", "F.dropout(self.fc2(F.gelu(self.fc1(x))), 0.5, training=self.training)")),
        ("encoder_block", BLOCK, ("    def forward(self, x):", "    def forward(self, x):\n        if self.training and torch.rand(()) < 0.1:\n            return x")),
        ("vision_transformer", MODEL, ("        x = self.norm(", "        x = x * (torch.rand(len(x), 1, 1) > 0.02) if self.training else x\n        x = self.norm(")),
        ("patch_embedding", PATCHES, ("return x", "return x + torch.randn_like(x) * 0.1 if self.training else x")),
    ],
)  # fmt: skip
def test_chance_in_training_mode_is_no_mistake(exercise: str, right: str, edit: tuple[str, str]) -> None:
    assert outcome_of(exercise, edited(f"import torch\n{right}", edit)) is None


def test_asking_for_the_mode_alone_is_no_mistake() -> None:
    text = edited(MLP, ("return self.fc2", "assert self.training in (True, False)\n        return self.fc2"))
    assert outcome_of("mlp", text) is None
    assert not is_training()


@pytest.mark.parametrize(
    "edits",
    [
        (
            ("def forward", "@property\n    def busy(self):\n        return self.training\n\n    def forward"),
            ("F.gelu(", "(F.relu if self.busy else F.gelu)("),
        ),
        (
            (
                "def forward",
                "@staticmethod\n    def act(mode, x):\n        return F.relu(x) if mode.training else nn.functional.gelu(x)\n\n    def forward",
            ),
            ("F.gelu(", "self.act(self, "),
        ),
    ],
    ids=["a property", "a static method"],
)
def test_wherever_the_mode_is_asked_for(edits: tuple[tuple[str, str], ...]) -> None:
    problem = outcome_of("mlp", edited(MLP, *edits))
    assert problem is not None and problem.mistake == "mlp_relu"


def test_an_exception_in_training_mode_is_said_to_be_there() -> None:
    text = edited(MLP, ("return self.fc2", "assert not self.training\n        return self.fc2"))
    with pytest.raises(AssertionError) as raised:
        outcome_of("mlp", text)
    assert raised.value.__notes__[-1] == "in training mode; in eval mode all is right"
    assert ", training=True)(" in raised.value.__notes__[0] and not is_training()


def test_a_train_that_returns_nothing_is_no_failure_of_the_checker() -> None:
    text = edited(
        MLP, ("    def forward", "    def train(self, mode=True):\n        super().train(mode)\n\n    def forward")
    )
    assert outcome_of("mlp", text) is None
