"""`vitscratch convert`: a model's weights for another library."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vitscratch.cli.common import Common


@dataclass(kw_only=True)
class Convert(Common):
    """Write a model for another library: timm, torchvision, transformers, Google's JAX code, or anything that runs
    ONNX. What was written is read back and compared bit for bit (ONNX: the logits) before it gets its name."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """The folder of a run, a file or folder of weights of any of these libraries, timm:NAME or hf:ORG/NAME."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Where to write: .safetensors or .pth (timm, torchvision), .safetensors (vitscratch), .npz, .onnx, or a folder
    (hf)."""

    to: Literal["vitscratch", "timm", "torchvision", "hf", "npz", "onnx"]
    """Who is to read it: hf is transformers' ViTForImageClassification, npz the layout of Google's checkpoints."""

    num_heads: int | None = None
    """How many attention heads the model was trained with: needed only where neither the weights nor a config.json
    beside them say so, and the width is none of our presets'."""

    pool: Literal["cls", "mean"] | None = None
    """What the head reads, if the weights do not say so: the class token, or the mean of the patches after the last
    norm."""

    half: bool = False
    """Round the weights to float16: a file of half the size, and logits that differ in the third or fourth digit. Not
    for onnx."""

    overwrite: bool = False
    """Replace OUT if it is there."""

    def run(self) -> int:
        from vitscratch.weights import build_from
        from vitscratch.weights.convert import check_out, convert

        check_out(self.out, self.to, self.overwrite)
        if self.half and self.to == "onnx":
            raise ValueError("--half: an ONNX file is written in float32; leave it out")
        saved = build_from(self.source, num_heads=self.num_heads, pool=self.pool)
        for note in saved.provenance.get("notes", ()):  # what IN does not say and was assumed, above all
            print(f"note: {note}")
        if self.half:
            saved.model.half()
        converted = convert(saved, self.out, self.to, self.overwrite)
        files = [self.out] if self.out.is_file() else [path for path in self.out.iterdir() if path.is_file()]
        size = f"{sum(file.stat().st_size for file in files) / 1e6:,.2f} MB"
        if self.to == "onnx":
            print(
                f"{self.out}: {size}, for any batch size; onnxruntime's logits differ from the model's by at most "
                f"{converted.difference:.0e} of the largest"
            )
        else:
            precision = "float16" if self.half else "float32"  # whatever IN has: a note says so
            print(
                f"{self.out}: {size}, {converted.tensors} tensors in {precision}; read back, they are equal bit for bit"
            )
        if converted.in_header:
            listed = "; ".join(converted.in_header)
            print(f"in its header, which vitscratch reads and {self.to} does not: {listed}")
        if converted.left_out:
            print(f"that file does not say: {'; '.join(converted.left_out)}")
        return 0
