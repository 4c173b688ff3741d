"""A trained model for programs that have no PyTorch: ONNX, and the check that it still says the same.

Needs the extra "onnx": `pip install 'vitscratch[onnx]'`.
"""

import copy
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from vitscratch.files import write_atomically
from vitscratch.weights.saved import SavedModel, header

TOLERANCE = 1e-4  # of the largest logit: fp32 sums in another order differ by some 1e-6 of it, a mistake by far more
_LARGEST = 2**31 - 1  # bytes in one file: what protobuf, ONNX's format, can hold
_MISSING = "needs onnx, onnxscript and onnxruntime: pip install 'vitscratch[onnx]'"


def export_onnx(path: Path, saved: SavedModel) -> None:
    """Write a model as one ONNX file, in fp32, for any batch size; a reader sees the old file or the whole new one.

    Its input is called "images", (batch, channels, height, width), preprocessed as `saved.preprocessing` says; its
    output is called "logits", (batch, classes). Class names, preprocessing, architecture and provenance are in the
    file's metadata (`metadata_props`), as JSON.

    Args:
        path: in a folder that exists.
        saved: from `load_model`; the model may be on any device and in any mode, and stays so.

    Raises:
        ImportError: the extra "onnx" is not installed. ValueError: more than one ONNX file can hold (2 GiB).
        OSError: it cannot be written.
    """
    size = 4 * sum(parameter.numel() for parameter in saved.model.parameters())
    if size >= _LARGEST:
        raise ValueError(f"the model has {size / 2**30:.1f} GiB of weights; one ONNX file holds less than 2 GiB")
    try:
        import onnxscript  # noqa: F401  (torch's exporter is written in it)
        from onnx import helper
    except ImportError as error:
        raise ImportError(f"the ONNX export {_MISSING}") from error

    model = copy.deepcopy(saved.model).cpu().float().eval()
    with redirect_stdout(StringIO()):  # older exporters tell, unasked, which rules they applied
        program = torch.onnx.export(
            model,
            (_example(saved, 2),),  # not 1, which the exporter would take for a fixed size
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    for item in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del item.metadata_props[:]  # where in which file of this machine each operation came from
    helper.set_model_props(graph, header(saved.config, saved.class_names, saved.preprocessing, saved.provenance))
    write_atomically(path, lambda file: file.write(graph.SerializeToString()))


def onnx_difference(path: Path, saved: SavedModel, batch_sizes: Sequence[int] = (1, 2, 7)) -> float:
    """How far onnxruntime's logits of an ONNX file are from the model's, on random pictures, on the CPU.

    Args:
        path: written by `export_onnx` from `saved`.
        batch_sizes: pictures to compare at once; each size once.

    Returns:
        The largest difference, as a part of the largest logit. `TOLERANCE` is what to expect at most.

    Raises:
        ImportError: onnxruntime is not installed. ValueError: it does not accept the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"comparing an ONNX file with its model {_MISSING}") from error

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base but this
        raise ValueError(f"{path} is refused by onnxruntime: {str(error).splitlines()[0]}") from error
    model = copy.deepcopy(saved.model).cpu().float().eval()
    difference = 0.0
    for batch_size in batch_sizes:
        images = _example(saved, batch_size)
        with torch.inference_mode():
            expected = model(images)
        logits = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        if logits.shape != expected.shape or not logits.isfinite().all():
            return float("inf")
        largest = max(expected.abs().max().item(), torch.finfo(torch.float32).tiny)  # an untrained head says 0
        difference = max(difference, (logits - expected).abs().max().item() / largest)
    return difference


def _example(saved: SavedModel, batch_size: int) -> torch.Tensor:
    patch_embed = saved.model.patch_embed
    generator = torch.Generator().manual_seed(batch_size)
    return torch.randn(batch_size, patch_embed.in_channels, *patch_embed.image_size, generator=generator)
