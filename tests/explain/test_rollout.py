import torch
from torch.testing import assert_close

from vitscratch.explain import attention_rollout, gaze

# Two blocks of two heads over three tokens; the means over heads are FIRST and SECOND, which do not commute.
FIRST = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
SECOND = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
SHIFT = torch.tensor([[0.25, -0.25, 0.0], [0.0, 0.0, 0.0], [0.0, 0.125, -0.125]])


def maps() -> torch.Tensor:
    """(depth 2, b 1, h 2, n 3, n 3)."""
    return torch.stack([torch.stack([mean + SHIFT, mean - SHIFT]) for mean in (FIRST, SECOND)])[:, None]


def test_rollout_of_two_blocks_worked_out_by_hand() -> None:
    # 0.5 A + 0.5 I of the first block: [[.75, .25, 0], [0, 1, 0], [0, .25, .75]]; of the second: [[.5, 0, .5],
    # [.5, .5, 0], [0, .25, .75]]. Their product, second times first:
    expected = torch.tensor([[0.375, 0.25, 0.375], [0.375, 0.625, 0.0], [0.0, 0.4375, 0.5625]])
    assert_close(attention_rollout(maps()), expected[None])


def test_the_mistakes_would_show() -> None:
    right, identity = attention_rollout(maps())[0], torch.eye(3)
    wrong = {
        "the residual forgotten": SECOND @ FIRST,
        "blocks in the other order": (0.5 * FIRST + 0.5 * identity) @ (0.5 * SECOND + 0.5 * identity),
        "one head alone": 0.25 * (SECOND + SHIFT + identity) @ (FIRST + SHIFT + identity),
        "the product before the mean over heads": torch.stack(
            [0.25 * (SECOND + sign * SHIFT + identity) @ (FIRST + sign * SHIFT + identity) for sign in (1, -1)]
        ).mean(dim=0),
    }
    for name, other in wrong.items():
        assert_close(other.sum(dim=-1), torch.ones(3), msg=name)  # rows that sum to one prove nothing
        assert not torch.allclose(other, right, atol=1e-3), name


def test_each_picture_is_rolled_out_alone() -> None:
    weights = torch.rand(3, 2, 5, 7, 7, dtype=torch.float64).softmax(dim=-1)
    rollout = attention_rollout(weights)
    assert rollout.shape == (2, 7, 7) and rollout.dtype == torch.float64
    assert_close(rollout.sum(dim=-1), torch.ones(2, 7, dtype=torch.float64))
    assert_close(attention_rollout(weights[:, 1:]), rollout[1:])


def test_gaze_is_the_row_of_what_the_head_reads_without_the_class_token() -> None:
    weights = torch.tensor([[0.4, 0.45, 0.15], [0.8, 0.05, 0.15], [0.9, 0.03, 0.07]])
    assert_close(gaze(weights), torch.tensor([1.5, 0.5]))
    assert_close(gaze(weights, "mean"), torch.tensor([0.08 / 0.15, 0.22 / 0.15]))
    assert gaze(torch.rand(2, 5, 7, 7)).shape == (2, 5, 6)
    assert_close(gaze(torch.eye(3)), torch.zeros(2))  # who looks at itself alone looks at no patch


def test_a_patch_that_attention_never_reaches_keeps_what_the_residual_keeps() -> None:
    weights = torch.rand(3, 1, 2, 7, 7)
    weights[..., 3] = 0  # nobody takes anything from token 3, not even itself
    rollout = attention_rollout(weights / weights.sum(dim=-1, keepdim=True))
    assert_close(rollout[0, :, 3], torch.tensor([0.0, 0, 0, 0.125, 0, 0, 0]))  # 0.5 ** 3
    assert (gaze(rollout)[0] == 0).tolist() == [False, False, True, False, False, False]
