"""An ONNX file says the same as the model it was written from, whatever the size of the batch."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vitscratch import VisionTransformer
from vitscratch.config import PRESETS, ViTConfig
from vitscratch.parity import awaken
from vitscratch.weights import SavedModel
from vitscratch.weights import onnx as module
from vitscratch.weights.onnx import TOLERANCE, export_onnx, onnx_difference

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra onnx)")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra onnx)")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra onnx)")

TINY = ViTConfig(
    image_size=(6, 15), patch_size=(3, 5), in_channels=2, num_classes=7, embed_dim=22, depth=2, num_heads=2, mlp_dim=13
)
NAMES = ("ant", "b, é", "cat", "dog", "eel", "fox", "gnu")
PREPROCESSING = {"image_size": [6, 15], "channels": 2}


def awake(config: ViTConfig, names: tuple[str, ...] = NAMES) -> SavedModel:
    model = VisionTransformer.from_config(config).eval()
    awaken(model, seed=1)
    return SavedModel(model, config, names, PREPROCESSING, {"seed": 5})


def logits(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SavedModel]:
    path, saved = tmp_path_factory.mktemp("onnx") / "tiny.onnx", awake(TINY)
    export_onnx(path, saved)
    return path, saved


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_any_batch_has_the_models_logits(exported: tuple[Path, SavedModel], batch_size: int) -> None:
    path, saved = exported
    images = torch.randn(batch_size, 2, 6, 15)
    with torch.inference_mode():
        expected = saved.model(images)
    assert expected.abs().max() > 0.5  # not asleep
    torch.testing.assert_close(logits(path, images), expected, atol=1e-5, rtol=1e-5)


def test_what_an_exporter_tells_is_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = torch.onnx.export

    def talkative(*args: Any, **kwargs: Any) -> Any:
        print("Applied 3 of general pattern rewrite rules.")
        return export(*args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", talkative)
    export_onnx(tmp_path / "quiet.onnx", awake(TINY))
    assert (tmp_path / "quiet.onnx").exists() and not capsys.readouterr().out


def test_the_file_names_its_ends_and_says_what_a_prediction_needs(exported: tuple[Path, SavedModel]) -> None:
    path = exported[0]
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    ends = [
        (end.name, [axis.dim_param or axis.dim_value for axis in end.type.tensor_type.shape.dim])
        for end in (*written.graph.input, *written.graph.output)
    ]
    assert ends == [("images", ["batch", 2, 6, 15]), ("logits", ["batch", 7])]
    props = {prop.key: json.loads(prop.value) for prop in written.metadata_props}
    assert props["class_names"] == list(NAMES) and props["preprocessing"] == PREPROCESSING
    assert props["config"] == {**asdict(TINY), "image_size": [6, 15], "patch_size": [3, 5]} and props["provenance"] == {
        "seed": 5
    }
    assert list(path.parent.iterdir()) == [path]  # no weights beside it, no half of it


def test_the_file_says_nothing_of_the_machine_that_wrote_it(exported: tuple[Path, SavedModel]) -> None:
    content = exported[0].read_bytes()
    assert b".py" not in content and str(Path(module.__file__).parent).encode() not in content


def test_mean_pool_in_half_precision_and_train_mode(tmp_path: Path) -> None:
    path, saved = tmp_path / "mean.onnx", awake(replace(TINY, pool="mean", dropout=0.5, num_classes=3))
    saved.model.bfloat16().train()
    export_onnx(path, saved)
    assert saved.model.training and saved.model.norm.weight.dtype == torch.bfloat16  # as it was
    images = torch.randn(5, 2, 6, 15)
    with torch.inference_mode():
        expected = saved.model.float().eval()(images)
    torch.testing.assert_close(logits(path, images), expected, atol=1e-5, rtol=1e-5)


def test_the_sizes_of_a_real_preset(tmp_path: Path) -> None:
    path, saved = tmp_path / "ti.onnx", awake(replace(PRESETS["vit_ti_16"], depth=2), ())
    export_onnx(path, saved)
    assert onnx_difference(path, saved, batch_sizes=(1, 3)) <= TOLERANCE
    assert path.stat().st_size < 1.1 * 4 * saved.config.num_parameters


def test_the_check_notices_a_weight_that_is_wrong(exported: tuple[Path, SavedModel]) -> None:
    path, saved = exported
    assert onnx_difference(path, saved) <= TOLERANCE
    other = awake(TINY)
    with torch.no_grad():
        other.model.blocks[1].attn.proj.bias[3] += 0.01
    assert onnx_difference(path, other) > TOLERANCE
    assert onnx_difference(path, awake(replace(TINY, num_classes=5))) == float("inf")


def test_an_untrained_model_agrees_too(exported: tuple[Path, SavedModel], tmp_path: Path) -> None:
    """Its logits are all 0, so there is nothing to be a part of."""
    written, saved = onnx.load(exported[0]), awake(TINY)
    for tensor in written.graph.initializer:
        if tensor.name in ("head.weight", "head.bias"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(written, tmp_path / "a.onnx")
    torch.nn.init.zeros_(saved.model.head.weight)
    torch.nn.init.zeros_(saved.model.head.bias)
    assert onnx_difference(tmp_path / "a.onnx", saved) == 0


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"no\.onnx is refused by onnxruntime"):
        onnx_difference(path, awake(TINY))


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.onnx"
    path.write_bytes(b"old")

    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(RuntimeError, match="no"):
        export_onnx(path, awake(TINY))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_too_large_for_one_file(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = VisionTransformer.from_config(PRESETS["vit_h_14"])
    with pytest.raises(ValueError, match=r"2\.4 GiB of weights; one ONNX file holds less than 2 GiB"):
        export_onnx(tmp_path / "h.onnx", SavedModel(model, PRESETS["vit_h_14"], (), {}, {}))


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'vitscratch\[onnx\]'"):
        export_onnx(tmp_path / "a.onnx", awake(TINY))
