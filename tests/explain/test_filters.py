import pytest
import torch
from torch.testing import assert_close

from vitscratch import VisionTransformer
from vitscratch.explain import patch_filters


def model(embed_dim: int = 22) -> VisionTransformer:
    return VisionTransformer((4, 9), (2, 3), 5, 3, embed_dim=embed_dim, depth=1, num_heads=2, mlp_dim=7)


def test_filters_mixed_from_two_patterns_have_two_components() -> None:
    ours = model()
    patterns, _ = torch.linalg.qr(torch.randn(30, 2))
    amounts = torch.randn(22, 2)
    amounts = amounts - amounts.mean(dim=0)
    amounts, _ = torch.linalg.qr(amounts)  # of mean 0 and at a right angle: then the patterns are the components
    with torch.no_grad():  # the constant part is no variance
        filters = (amounts * torch.tensor([3.0, 1.0])) @ patterns.T + torch.randn(30)
        ours.patch_embed.proj.weight.copy_(filters.view(22, 5, 2, 3))
    components, shares = patch_filters(ours, count=3)
    assert components.shape == (3, 5, 2, 3)
    assert_close(shares, torch.tensor([0.9, 0.1, 0.0]), atol=1e-5, rtol=0)
    for component, pattern in zip(components, patterns.T, strict=False):
        assert float(torch.dot(component.flatten(), pattern).abs()) == pytest.approx(1, abs=1e-4)
        flat = component.flatten()
        assert flat[flat.abs().argmax()] > 0


@pytest.mark.parametrize(("embed_dim", "count", "found"), [(22, 99, 22), (34, 99, 30), (34, 7, 7)])
def test_there_are_no_more_than_filters_or_pixels(embed_dim: int, count: int, found: int) -> None:
    components, shares = patch_filters(model(embed_dim).half(), count)
    flat = components.flatten(1)
    assert components.shape[0] == shares.shape[0] == found and components.dtype == torch.float32
    assert_close(flat @ flat.T, torch.eye(found), atol=1e-4, rtol=0)
    assert (shares[:-1] >= shares[1:]).all() and (found == 7) == (float(shares.sum()) < 0.999)


def test_equal_filters_have_no_variance_and_no_nan() -> None:
    ours = model()
    torch.nn.init.ones_(ours.patch_embed.proj.weight)
    assert patch_filters(ours).shares.tolist() == [0.0] * 22


def test_no_component_is_refused() -> None:
    with pytest.raises(ValueError, match="count 0: expected at least 1"):
        patch_filters(model(), 0)
