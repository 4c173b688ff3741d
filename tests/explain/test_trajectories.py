import pytest
import torch
from torch.testing import assert_close

from vitscratch import VisionTransformer
from vitscratch.explain import token_trajectories
from vitscratch.parity import awaken


def model(pool: str) -> VisionTransformer:
    ours = VisionTransformer((4, 9), (2, 3), 5, 3, embed_dim=22, depth=3, num_heads=2, mlp_dim=7, pool=pool).eval()
    awaken(ours)
    return ours


@pytest.mark.parametrize("one_query", [True, False])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_the_last_stage_is_what_the_head_reads(pool: str, one_query: bool) -> None:
    ours, images = model(pool), torch.randn(2, 5, 4, 9)
    ours.one_query = one_query
    tokens, norms, kept, to_answer = token_trajectories(ours, images)
    assert tokens.shape == (4, 2, 7, 22) and norms.shape == kept.shape == to_answer.shape == (4, 2, 7)
    assert_close(tokens[0], ours.embed(images))
    last = ours.norm(tokens[-1])
    assert_close(ours.head(last[:, 0] if pool == "cls" else last[:, 1:].mean(dim=1)), ours(images))
    assert not tokens.requires_grad


def test_what_is_measured() -> None:
    ours, images = model("cls"), torch.randn(2, 5, 4, 9)
    tokens, norms, kept, to_answer = token_trajectories(ours, images)
    one = tokens[2, 1, 5]  # after the second block, of the second picture, patch 4
    assert_close(norms[2, 1, 5], one.square().sum().sqrt())
    assert_close(kept[2, 1, 5], torch.dot(one, tokens[0, 1, 5]) / one.norm() / tokens[0, 1, 5].norm())
    assert_close(to_answer[2, 1, 5], torch.dot(one, tokens[3, 1, 0]) / one.norm() / tokens[3, 1, 0].norm())
    assert_close(kept[0], torch.ones(2, 7))
    assert_close(to_answer[-1, :, 0], torch.ones(2))
    mean = model("mean")
    tokens, _, _, to_answer = token_trajectories(mean, images)
    answer = tokens[3, 1, 1:].mean(dim=0)
    assert_close(to_answer[2, 1, 5], torch.cosine_similarity(tokens[2, 1, 5], answer, dim=0))
