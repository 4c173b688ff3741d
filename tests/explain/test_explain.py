import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vitscratch import attention_maps, position_similarity, record_attention, vit_nano_8
from vitscratch.parity import awaken


@pytest.fixture
def model() -> nn.Module:
    model = vit_nano_8(image_size=(12, 20)).eval()
    awaken(model)
    return model


def test_maps_are_the_weights_that_the_output_is_made_of(model: nn.Module) -> None:
    images = torch.randn(2, 1, 12, 20)
    maps = attention_maps(model, images)
    assert maps.shape == (3, 2, 4, 16, 16)
    assert_close(maps.sum(dim=-1), torch.ones(3, 2, 4, 16))
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    layer = model.blocks[2].attn
    layer.register_forward_hook(lambda _, x, y: inputs.append(x[0]) or outputs.append(y))
    model(images)
    values = layer.queries_keys_values(inputs[0])[2]
    rebuilt = (maps[2] @ values).transpose(1, 2).flatten(2) @ layer.proj.weight.T + layer.proj.bias
    assert_close(rebuilt, outputs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_recording_changes_neither_output_nor_gradients_nor_random_numbers(training: bool) -> None:
    model = vit_nano_8(dropout=0.1, attention_dropout=0.2).train(training)
    awaken(model)
    images = torch.randn(2, 1, 8, 8)
    results = []
    for recording in (False, True):
        torch.manual_seed(1)
        if recording:
            with record_attention(model) as recorded:
                logits = model(images)
            assert list(recorded) == [f"blocks.{i}.attn" for i in range(3)]
            assert not any(weights.requires_grad for weights in recorded.values())
        else:
            logits = model(images)
        results.append((logits, *torch.autograd.grad(logits.sum(), list(model.parameters())), torch.get_rng_state()))
    for without, with_recording in zip(*results, strict=True):
        assert_close(with_recording, without, rtol=0, atol=0)


def test_hooks_are_gone_afterwards_even_after_an_error(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="do not fit"), record_attention(model):
        model(torch.zeros(1, 3, 12, 20))
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in model.modules())


def test_a_model_without_our_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no vitscratch MultiHeadSelfAttention"):
        attention_maps(nn.Linear(2, 2), torch.zeros(1, 1, 2, 2))


def test_position_similarity_is_cosine_on_the_grid(model: nn.Module) -> None:
    similarity = position_similarity(model)
    assert similarity.shape == (3, 5, 3, 5)
    table = model.pos_embed[0, 1:].reshape(3, 5, -1)
    assert_close(similarity[1, 4, 2, 0], torch.cosine_similarity(table[1, 4], table[2, 0], dim=0))
    assert_close(torch.einsum("ijij->ij", similarity), torch.ones(3, 5))
