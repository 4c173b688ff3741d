import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vitscratch
from vitscratch import PRESETS, VisionTransformer, ViTConfig

# The paper's Table 1 and DeiT's, to the last parameter: what torchvision and timm have, too.
PINNED = {
    "vit_ti_16": 5_717_416,
    "vit_s_16": 22_050_664,
    "vit_b_16": 86_567_656,
    "vit_b_32": 88_224_232,
    "vit_l_16": 304_326_632,
    "vit_l_32": 306_535_400,
    "vit_h_14": 632_045_800,
    "vit_nano_32": 2_693_578,
    "vit_nano_8": 338_890,
}


def test_every_preset_is_pinned() -> None:
    assert PINNED.keys() == PRESETS.keys()


@pytest.mark.parametrize("preset", PINNED)
def test_presets_pin_their_parameter_counts(preset: str) -> None:
    with torch.device("meta"):
        model = getattr(vitscratch, preset)()
    assert sum(parameter.numel() for parameter in model.parameters()) == PINNED[preset]
    assert PRESETS[preset].num_parameters == PINNED[preset]


def _counted_parameters(model: VisionTransformer) -> dict[str, int]:
    def count(*names: str) -> int:
        return sum(p.numel() for n, p in model.named_parameters() if any(part in n for part in names))

    return {
        "patch embedding": count("patch_embed."),
        "class token": count("cls_token"),
        "position embedding": count("pos_embed"),
        "blocks: norms": count("norm1", "norm2"),
        "blocks: attention qkv": count("qkv"),
        "blocks: attention products": 0,
        "blocks: attention projection": count("attn.proj"),
        "blocks: MLP": count("mlp."),
        "final norm": sum(p.numel() for p in model.norm.parameters()),
        "head": count("head."),
    }


CONFIGS = {
    "rectangles": ViTConfig((14, 33), (7, 11), 5, 13, embed_dim=15, depth=2, num_heads=3, mlp_dim=29),
    "mean pool": ViTConfig(15, 5, 1, 11, embed_dim=14, depth=3, num_heads=2, mlp_dim=17, pool="mean"),
    "nano_32": PRESETS["vit_nano_32"],
    "b_16": PRESETS["vit_b_16"],
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_by_formula_are_those_counted_part_by_part(config: ViTConfig) -> None:
    with torch.device("meta"):
        model = VisionTransformer.from_config(config)
    assert {cost.part: cost.parameters for cost in config.costs()} == _counted_parameters(model)
    assert config.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert config.num_patches == model.patch_embed.num_patches


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_flops_by_formula_are_those_counted_by_running(config: ViTConfig) -> None:
    with torch.device("meta"):
        model = VisionTransformer.from_config(config).eval()
        images = torch.empty(1, config.in_channels, *model.patch_embed.image_size)
    for block in model.blocks:
        block.attn.fused = False  # torch's counter sees every product of the readable form
    with FlopCounterMode(display=False) as counter:
        model(images)
    assert counter.get_total_flops() == config.executed_flops
    model.one_query = False
    with FlopCounterMode(display=False) as counter:
        model(images)
    counted = counter.get_flop_counts()["Global"]
    by_operation = {str(operation): flops for operation, flops in counted.items()}
    costs = {cost.part: cost.flops for cost in config.costs()}
    assert sum(by_operation.values()) == config.flops == sum(costs.values())
    assert by_operation["aten.convolution"] == costs["patch embedding"]
    assert by_operation["aten.bmm"] == costs["blocks: attention products"]


def test_b_16_costs_what_the_literature_says() -> None:
    assert PRESETS["vit_b_16"].flops / 1e9 == pytest.approx(35.1, abs=0.05)  # 17.56 G multiply-adds (torchvision)


def test_one_query_spares_what_the_docs_say() -> None:
    assert 1 - PRESETS["vit_b_16"].executed_flops / PRESETS["vit_b_16"].flops == pytest.approx(0.082, abs=5e-4)
    assert 1 - PRESETS["vit_nano_32"].executed_flops / PRESETS["vit_nano_32"].flops == pytest.approx(0.163, abs=5e-4)


def test_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        ViTConfig().depth = 3  # type: ignore[misc]
