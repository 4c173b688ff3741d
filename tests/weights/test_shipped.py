"""The weights that come with the package: what is in the file, and that it is the one of the model card."""

import re

import torch
from safetensors import safe_open
from torch.testing import assert_close

from vitscratch.vit import vit_nano_32
from vitscratch.weights import build_from, shipped


def test_the_file_is_small_half_and_says_nothing_of_the_machine_it_was_made_on() -> None:
    path = shipped("cifar10")
    assert path.stat().st_size <= 6_000_000
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
        text = str(file.metadata())
    assert "/" not in text and "test_accuracy" in text


def test_it_is_the_model_of_the_card() -> None:
    saved, card = build_from("cifar10"), shipped("cifar10").with_suffix(".md").read_text()
    assert f"{saved.config.num_parameters:,} parameters" in card and saved.config.num_parameters < 3_000_000
    (accuracy,) = re.findall(r"\*\*([\d.]+) %\*\*", card)
    assert saved.provenance["test_accuracy"] == float(accuracy) / 100
    assert len(saved.class_names) == 10 and all(name in card for name in saved.class_names)


def test_a_builder_loads_it_and_it_answers_as_when_it_was_measured() -> None:
    model = vit_nano_32(weights="cifar10").eval()
    row, column = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    drawn = torch.stack([column, row, row * column])[None]
    expected = [0.3513, -1.4821, -2.7166, 1.1091, 3.1118, -1.2582, -2.0537, 1.6416, 0.7159, -0.1582]
    assert_close(model(drawn)[0].detach(), torch.tensor(expected), rtol=0, atol=1e-3)
