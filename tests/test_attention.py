import sys

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from vitscratch import MultiHeadSelfAttention
from vitscratch.attention import attention

B, H, N, K = 2, 3, 7, 5
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


def test_one_query_by_hand() -> None:
    q = torch.tensor([[[[1.0, 2.0]]]])
    k = torch.tensor([[[[3.0, 0.0], [0.0, 1.0]]]])
    v = torch.tensor([[[[10.0, 20.0], [30.0, 40.0]]]])
    output, weights = attention(q, k, v)
    scores = torch.tensor([3.0, 2.0]) / 2**0.5
    expected = scores.exp() / scores.exp().sum()
    assert_close(weights[0, 0, 0], expected)
    assert_close(output[0, 0, 0], expected[0] * v[0, 0, 0] + expected[1] * v[0, 0, 1])


def test_weights_are_a_distribution_over_keys() -> None:
    q, k, v = torch.randn(B, H, 4, K), torch.randn(B, H, N, K), torch.randn(B, H, N, K)
    output, weights = attention(q, k, v)
    assert output.shape == (B, H, 4, K) and weights.shape == (B, H, 4, N)
    assert (weights > 0).all()
    assert_close(weights.sum(dim=-1), torch.ones(B, H, 4))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_readable_and_fused_agree_in_outputs_and_gradients(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["vitscratch.attention"], "bfloat16", None)  # fused in bf16, too
    layer = MultiHeadSelfAttention(H * K, H).to(dtype)
    x = torch.randn(B, N, H * K).to(dtype).requires_grad_()
    direction = torch.randn(B, N, H * K).to(dtype)
    results = []
    for fused in (True, False):
        layer.fused = fused
        output = layer(x)
        results.append((output, *torch.autograd.grad((output * direction).sum(), (x, *layer.parameters()))))
    for fast, readable in zip(*results, strict=True):
        assert_close(fast, readable, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float64, True), (torch.float32, True), (torch.float16, True), (torch.bfloat16, False)],
)
def test_the_fused_form_runs_where_it_is_faster(
    dtype: torch.dtype, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, calls = MultiHeadSelfAttention(H * K, H), []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *args, **kw: calls.append(1) or fused(*args, **kw))
    layer.to(dtype)(torch.randn(B, N, H * K).to(dtype))
    with torch.autocast("cpu", dtype, enabled=dtype.itemsize == 2):
        layer.float()(torch.randn(B, N, H * K))
    assert len(calls) == 2 * expected


@pytest.mark.parametrize("fused", [True, False])
def test_permuting_tokens_permutes_outputs(fused: bool) -> None:
    layer = MultiHeadSelfAttention(H * K, H, fused=fused).double()
    x, order = torch.randn(B, N, H * K, dtype=torch.float64), torch.randperm(N)
    assert_close(layer(x[:, order]), layer(x)[:, order], rtol=0, atol=1e-12)


def test_weights_are_those_of_the_readable_form() -> None:
    layer = MultiHeadSelfAttention(H * K, H).double().train()
    layer.attention_dropout = 0.5  # not part of the weights
    x = torch.randn(B, N, H * K, dtype=torch.float64)
    q, k, v = layer.queries_keys_values(x)
    assert_close(layer.weights(x), attention(q, k, v)[1], rtol=0, atol=0)
    assert_close(layer.weights(x), torch.softmax(q @ k.transpose(2, 3) / K**0.5, dim=3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_dropout_acts_in_training_only(fused: bool) -> None:
    layer = MultiHeadSelfAttention(H * K, H, attention_dropout=0.5, fused=fused)
    x = torch.randn(B, N, H * K)
    assert (layer.train()(x) != layer(x)).any()
    assert_close(layer.eval()(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_dropout_zeroes_weights_and_keeps_the_mean(fused: bool) -> None:
    heads, tokens, width = 1, 50, 2
    layer = MultiHeadSelfAttention(width, heads, attention_dropout=0.25, fused=fused).train()
    with torch.no_grad():  # queries and keys are 0, every value is 1, the output is passed on: attention is even
        layer.qkv.weight.zero_()
        layer.qkv.bias.copy_(torch.tensor([0.0, 0, 0, 0, 1, 1]))
        layer.proj.weight.copy_(torch.eye(2))
        layer.proj.bias.zero_()
    sums = layer(torch.zeros(400, tokens, width)).double()
    assert_close(sums.mean().item(), 1.0, rtol=0, atol=0.01)
    # A sum of 50 independent weights of 1/50, each 0 with probability 1/4 and 4/3 of itself otherwise.
    assert_close(sums.var().item(), (1 / 50) * (1 / 3), rtol=0.05, atol=0)


@pytest.mark.parametrize(("embed_dim", "num_heads", "nearest"), [(10, 3, 2), (768, 13, 12), (8, 0, 1), (7, 100, 7)])
def test_heads_that_do_not_fit_are_named_with_the_nearest_that_do(embed_dim: int, num_heads: int, nearest: int) -> None:
    message = f"embed_dim {embed_dim} does not split into {num_heads} heads of equal width; nearest: {nearest}$"
    with pytest.raises(ValueError, match=message):
        MultiHeadSelfAttention(embed_dim, num_heads)
