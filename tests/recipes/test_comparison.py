"""What a comparison makes of its settings, without training anything."""

from dataclasses import replace

import pytest

from vitscratch.recipes import COMPARISONS, Cifake, PicturesRecipe


@pytest.mark.parametrize(("name", "usual"), [("fake-digits", (2, 64, 500)), ("fake-or-real", (1, 32, 50))])
def test_quick_keeps_what_somebody_has_set(name: str, usual: tuple[int, int, int]) -> None:
    def of(**settings: int) -> tuple[int, int, int | None]:
        quick = COMPARISONS[name](**settings).quick()  # type: ignore[arg-type]
        return quick.epochs, quick.batch_size, quick.max_pictures

    assert of() == usual
    assert of(epochs=7, max_pictures=1013) == (7, usual[1], 1013)
    assert of(batch_size=83) == (usual[0], 83, usual[2])


def test_a_small_model_at_224_pixels_needs_no_weights_but_its_name() -> None:
    comparison = Cifake(data="x", models=("vit", "vit-224", "vit-224-scratch"))
    vit, pretrained, scratch = comparison.chosen().values()
    assert pretrained.missing == "no --vit-weights given" and not vit.missing and not scratch.missing
    assert isinstance(scratch.recipe, PicturesRecipe) and isinstance(vit.recipe, PicturesRecipe)
    assert (scratch.title, scratch.recipe.picture_shape()) == ("ViT-Ti/16, 224 px, scratch", ((224, 224), 3))
    assert scratch.recipe == replace(vit.recipe, preset="vit_ti_16", image_size=224)  # the same settings otherwise
    config, model = scratch.recipe.create(num_classes=2)
    assert config is not None and config.num_patches == 196
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_524_802
    assert Cifake(data="x").chosen()["vit-224-scratch"].missing == "not named in --models"
