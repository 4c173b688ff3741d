"""`vitscratch explain`: look inside a model, with pictures of one's own."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vitscratch.cli.common import Common, Device, check_png, check_writable, pick_device, save_figure, write_json
from vitscratch.cli.predict import opened, picture_files

if TYPE_CHECKING:
    from torch import Tensor

    from vitscratch.weights import SavedModel

What = Literal["attention", "rollout", "positions", "filters", "trajectory"]
OF_PICTURES: tuple[What, ...] = ("attention", "rollout", "trajectory")  # the others show the weights alone
DRAWN = 8  # pictures in a figure


@dataclass(kw_only=True)
class Explain(Common):
    """Look inside a model: what attends to what, which positions are alike, what patches are compared with."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """As for predict: folder of a run, file or folder of weights, "timm:NAME", "hf:ORG/NAME", or the name of weights
    that come with the package. Or the name of a preset, vit_b_16 say, for a model that has learned nothing."""

    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[IMAGE ...]")] = ()
    """Picture files, or folders of them; at most 8. The figures of positions and filters need none."""

    out: Annotated[Path, tyro.conf.arg(metavar="PNG")]
    """Where to draw the figure. For --what all, and for trajectories of several pictures, its name is the beginning of
    several: OUT-rollout.png."""

    what: What | Literal["all"] = "attention"
    """attention: of the token that the head reads, over the picture; rollout: the same through all blocks; trajectory:
    each token, block by block; positions: how alike the position embeddings are; filters: what patches are compared
    with."""

    block: int | None = None
    """Attention in this block alone (1, 2, ...), a column for each head."""

    head: int | None = None
    """Attention of this head alone (1, 2, ...), a column for each block. Without both: all blocks, mean over heads."""

    num_heads: int | None = None
    """As for predict: how many heads the model was trained with, if nothing says so."""

    pool: Literal["cls", "mean"] | None = None
    """As for predict: what the head reads, if the weights do not say so."""

    device: Device = "auto"
    """Where to compute."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write what is drawn as numbers."""

    def run(self) -> int:
        check_writable(self.json)
        check_png(self.out)
        paths = self._paths()
        device = pick_device(self.device)
        saved = open_model(self.model, self.num_heads, self.pool)
        columns = self._columns(saved)  # refuses a block that is not there before any work
        for note in saved.provenance.get("notes", ()):
            print(f"vitscratch: {self.model}: {note}", file=sys.stderr)
        wanted: tuple[What, ...] = (*OF_PICTURES, "positions", "filters") if self.what == "all" else (self.what,)
        figures, numbers = self._of_weights(saved, wanted)
        seen = {}
        if paths:
            if not (seen := _prepared(paths, self.model, saved)):
                return 1
            more, said = self._of_pictures(saved, seen, wanted, columns, device)
            figures, numbers = figures | more, numbers | said
        for name, figure in figures.items():
            out = self.out if len(figures) == 1 else self.out.with_name(f"{self.out.stem}-{name}{self.out.suffix}")
            save_figure(figure, out)
            print(f"{out}: {name}")
        if self.json is not None:
            write_json(numbers, self.json)
        return 0 if len(seen) == len(paths) else 1

    def _paths(self) -> list[Path]:
        """The pictures that are asked for; none where the figure is of weights alone."""
        if (self.block, self.head) != (None, None) and self.what not in ("attention", "all"):
            raise ValueError(f"--block and --head choose among attention maps; leave them out for --what {self.what}")
        if self.what not in OF_PICTURES and self.what != "all":
            if self.images:
                raise ValueError(f"--what {self.what} shows weights, whatever the picture; leave {self.images[0]} out")
            return []
        if not self.images:
            raise ValueError(f"--what {self.what} needs a picture; name one, or a folder of pictures, after the model")
        if len(paths := picture_files(self.images)) > DRAWN:
            raise ValueError(f"{len(paths)} pictures are too many for a figure; name at most {DRAWN}")
        return paths

    def _columns(self, saved: "SavedModel") -> list[tuple[str, int, int | None]]:
        """The attention maps to draw: name, block and head (None: the mean over heads), counted from 0."""
        depth, heads = saved.config.depth, saved.config.num_heads
        for option, number, most in (("--block", self.block, depth), ("--head", self.head, heads)):
            if number is not None and not 1 <= number <= most:
                raise ValueError(f"{option} {number}: {self.model} has {most}; expected 1 to {most}")
        blocks = range(depth) if self.block is None else [self.block - 1]
        if self.head is None and self.block is None:
            return [(f"block {block + 1}", block, None) for block in blocks]
        chosen = range(heads) if self.head is None else [self.head - 1]
        return [(f"block {block + 1}\nhead {head + 1}", block, head) for block in blocks for head in chosen]

    def _of_weights(self, saved: "SavedModel", wanted: Sequence[What]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Figures and numbers that need no picture."""
        from vitscratch import plots
        from vitscratch.explain import patch_filters, position_similarity

        figures: dict[str, Any] = {}
        numbers: dict[str, Any] = {}
        if "positions" in wanted:
            similarity = position_similarity(saved.model)
            figures["positions"] = plots.position_similarity(similarity)
            numbers["positions"] = similarity.tolist()
        if "filters" in wanted:
            components, shares = patch_filters(saved.model)
            figures["filters"] = plots.patch_filters(components, shares)
            numbers["filters"] = {"shares": shares.tolist(), "components": components.tolist()}
        return figures, numbers

    def _of_pictures(
        self,
        saved: "SavedModel",
        seen: "dict[Path, Tensor]",
        wanted: Sequence[What],
        columns: Sequence[tuple[str, int, int | None]],
        device: str,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Figures and numbers of what happens with pictures, which `seen` has as the model takes them."""
        import torch

        from vitscratch import plots
        from vitscratch.data import Preprocessing
        from vitscratch.explain import attention_maps, attention_rollout, gaze, token_trajectories

        model, pool, grid = saved.model.to(device), saved.model.pool, saved.model.patch_embed.grid_size
        images = torch.stack(list(seen.values()))
        shown = Preprocessing.from_dict(saved.preprocessing).denormalise(images)
        titles = [path.name for path in seen]
        reader = "the class token" if pool == "cls" else "the patches, on average"
        figures: dict[str, Any] = {}
        numbers: dict[str, Any] = {}
        maps = attention_maps(model, images.to(device)).float().cpu()

        def draw(name: str, looks: "Tensor", names: Sequence[str], heading: str) -> None:
            figures[name] = plots.gaze(shown, looks, grid, titles, names, heading)
            grids = looks.unflatten(-1, grid).tolist()
            labels = [label.replace("\n", ", ") for label in names]
            found = (dict(zip(labels, row, strict=True)) for row in grids)
            numbers[name] = dict(zip(map(str, seen), found, strict=True))

        if "attention" in wanted:
            chosen = [maps[block].mean(dim=1) if head is None else maps[block, :, head] for _, block, head in columns]
            looks = gaze(torch.stack(chosen, dim=1), pool)
            means = ", mean over heads" if columns[0][2] is None else ""
            draw("attention", looks, [name for name, _, _ in columns], f"Attention of {reader}{means}")
        if "rollout" in wanted:
            heading = f"Attention rollout: all blocks together, of {reader}"
            draw("rollout", gaze(attention_rollout(maps), pool)[:, None], ["rollout"], heading)
        if "trajectory" in wanted:
            way = token_trajectories(model, images.to(device))
            measured = {name: getattr(way, name).float().cpu() for name in ("norms", "kept", "to_answer")}
            numbers["trajectory"] = {}
            for i, path in enumerate(seen):
                name = "trajectory" if len(seen) == 1 else f"trajectory-{i + 1}"
                one = {what: values[:, i] for what, values in measured.items()}
                figures[name] = plots.token_trajectories(**one, title=path.name)
                numbers["trajectory"][str(path)] = {what: values.tolist() for what, values in one.items()}
        return figures, numbers


def _prepared(paths: Sequence[Path], name: str, saved: "SavedModel") -> "dict[Path, Tensor]":
    from vitscratch.data import Preprocessing

    if not saved.preprocessing:
        raise ValueError(
            f"{name} does not say how its pictures were prepared; in Python, vitscratch.explain leaves that to you"
        )
    return opened(paths, Preprocessing.from_dict(saved.preprocessing))


def open_model(name: str, num_heads: int | None, pool: Literal["cls", "mean"] | None) -> "SavedModel":
    """Pretrained weights as `build_from` reads them; or a preset, by its name, with weights at random.

    Raises:
        ValueError: as `build_from`, or an option that a preset has not.
    """
    from vitscratch.config import PRESETS
    from vitscratch.weights import SavedModel, build_from

    if name not in PRESETS or Path(name).exists():
        return build_from(name, num_heads=num_heads, pool=pool)
    import torch

    from vitscratch.data import Preprocessing
    from vitscratch.vit import VisionTransformer

    if num_heads not in (None, PRESETS[name].num_heads):
        raise ValueError(f"--num-heads {num_heads}: {name} has {PRESETS[name].num_heads}; leave it out")
    torch.manual_seed(0)
    config = PRESETS[name] if pool is None else replace(PRESETS[name], pool=pool)
    model = VisionTransformer.from_config(config).eval()
    preprocessing = Preprocessing(model.patch_embed.image_size, config.in_channels, (0.5,), (0.5,))
    names = tuple(f"class {i}" for i in range(config.num_classes))
    note = "weights at random (seed 0): what is seen here, nobody has learned"
    return SavedModel(model, config, names, preprocessing.to_dict(), {"notes": [note]})
