"""What must be tried without the shape-checking import hook: compilers, which trace the code as it stands, and errors
that the hook would forestall."""

import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

PRELUDE = """
import torch
from torch.testing import assert_close
from vitscratch import vit_nano_8
from vitscratch.parity import awaken
model, images = vit_nano_8().eval(), torch.randn(3, 1, 8, 8)
awaken(model)
expected = model(images)
"""

CASES = {
    "sizes and pictures of types that annotations would refuse": """
        import numpy
        from vitscratch import PatchEmbedding, ViTConfig, init_weights, patchify
        from vitscratch.weights import resize_position_embedding
        assert PatchEmbedding(numpy.int64(8), 2.0, 1, 4).grid_size == (4, 4)
        assert vit_nano_8(image_size=[8, 12]).patch_embed.num_patches == 6  # lists, as JSON has them
        assert ViTConfig(image_size=[8, 12], patch_size=4).num_patches == 6
        for call, message in [
            (lambda: PatchEmbedding((8, 8, 3), 2, 1, 4), "size (8, 8, 3) is no size in pixels"),
            (lambda: PatchEmbedding(8.5, 2, 1, 4), "size 8.5 is no size in pixels"),
            (lambda: patchify(torch.zeros(1, 8, 8), 2), "images of shape (1, 8, 8); expected (batch, channels, "),
            (lambda: model(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)), "images are torch.uint8; expected floating"),
            (lambda: init_weights(model, position="sine"), "position 'sine' is unknown; expected 'normal' or 'sincos'"),
            (lambda: resize_position_embedding(model.pos_embed, (2, 2), (3, 3), "area"), "method 'area' is unknown"),
        ]:
            try:
                call()
            except ValueError as error:
                assert message in str(error), error
            else:
                raise AssertionError(message)
        assert model(torch.zeros(0, 1, 8, 8)).shape == (0, 10)
    """,
    "a pool that does not exist": """
        try:
            vit_nano_8(pool="max")
        except ValueError as error:
            assert str(error) == "pool 'max' is unknown; expected 'cls' or 'mean'", error
        else:
            raise AssertionError("accepted")
    """,
    "compile": """
        compiled = torch.compile(model, fullgraph=True)
        assert_close(compiled(images), expected, rtol=1e-4, atol=1e-4)
    """,
    "compiled training step": """
        model.train()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        gradients = torch.autograd.grad(compiled(images).square().sum(), list(model.parameters()))
        eager = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
        for ours, theirs in zip(gradients, eager, strict=True):
            assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    """,
    "compile spares what nobody asks for": """
        widths = []
        def count(graph, inputs):
            products = [node for node in graph.graph.nodes if node.target is torch._C._nn.linear]
            widths.extend(tuple(node.meta["example_value"].shape[:2]) for node in products)
            return graph.forward
        assert_close(torch.compile(model, backend=count)(images), expected)
        assert widths[-4:] == [(3, 1), (3, 1), (3, 1), (3, 10)], widths  # the last block's projection and MLP, the head
        model.blocks[-1].mlp.register_forward_hook(lambda *call: None)
        torch.compiler.reset()
        torch.compile(model, backend=count)(images)
        assert widths[-4:] == [(3, 5), (3, 5), (3, 5), (3, 10)], widths  # a hook is a request for all tokens
    """,
    "compile, readable attention, mean pool": """
        model.pool = "mean"
        for block in model.blocks:
            block.attn.fused = False
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-4)
    """,
    "export, any batch": """
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
        attention = [node for node in program.graph.nodes if "scaled_dot_product" in str(node.target)]
        assert len(attention) == 2  # of three blocks: in the last one the class token asks alone
        for size in (1, 3, 7):
            pictures = torch.randn(size, 1, 8, 8)
            assert_close(program.module()(pictures), model(pictures), rtol=1e-4, atol=1e-4)
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_without_the_import_hook(case: str) -> None:
    if case == "compile" and not _has_compiler():
        pytest.skip("torch.compile's default backend needs a C++ compiler and Python's headers, and there are none")
    code = PRELUDE + textwrap.dedent(CASES[case])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _has_compiler() -> bool:
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return headers.exists() and any(shutil.which(name) for name in ("c++", "g++", "clang++"))
