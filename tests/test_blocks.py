"""MLP and EncoderBlock: what can be said without a reference (tests/parity has the references)."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vitscratch import MLP, EncoderBlock


def test_mlp_is_linear_gelu_linear() -> None:
    mlp = MLP(5, 13).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    gelu = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    assert_close(mlp(x), gelu @ mlp.fc2.weight.T + mlp.fc2.bias, rtol=0, atol=1e-12)


def test_mlp_dropout_acts_after_the_gelu_and_after_the_second_layer() -> None:
    mlp = MLP(5, 2000, dropout=0.5).train()
    hidden: list[torch.Tensor] = []
    mlp.fc2.register_forward_pre_hook(lambda layer, inputs: hidden.append(inputs[0]))
    output = mlp(torch.randn(7, 11, 5))
    assert 0.45 < (hidden[0] == 0).float().mean() < 0.55
    assert 0.35 < (output == 0).float().mean() < 0.65
    assert (mlp.eval()(torch.randn(7, 11, 5)) != 0).all()


def test_block_is_the_identity_when_both_branches_are_silent() -> None:
    block = EncoderBlock(15, 3, 29)
    for layer in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(2, 7, 15)
    assert_close(block(x), x, rtol=0, atol=0)


def test_block_is_equation_2_and_equation_3() -> None:
    block = EncoderBlock(15, 3, 29).double()
    x = torch.randn(2, 7, 15, dtype=torch.float64)
    after_attention = block.attn(block.norm1(x)) + x
    assert_close(block(x), block.mlp(block.norm2(after_attention)) + after_attention, rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["norm1", "norm2"])
def test_norms_use_epsilon_1e_6(norm: str) -> None:
    layer = getattr(EncoderBlock(15, 3, 29), norm).double()
    x = 1e-3 * torch.randn(2, 7, 15, dtype=torch.float64)  # of a variance that epsilon shows in
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
    assert_close(layer(x), (x - mean) / (variance + 1e-6).sqrt(), rtol=0, atol=1e-12)


def test_dropout_rates_reach_their_layers() -> None:
    block = EncoderBlock(15, 3, 29, dropout=0.1, attention_dropout=0.2)
    assert (block.attn.dropout.p, block.attn.attention_dropout, block.mlp.dropout.p) == (0.1, 0.2, 0.1)
