"""Features: what the head reads, computed once; and a cache that notices every change."""

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from tests.data.make import encoded, picture, write_folder
from tests.transfer.test_head import KINDS
from vitscratch.data import PictureFiles, Pictures, Preprocessing, TensorBatches, contents
from vitscratch.parity import awaken
from vitscratch.transfer import CachedFeatures, cached_features, extract_features, features, replace_head
from vitscratch.vit import VisionTransformer

PREPARE = Preprocessing((8, 12), 3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tiny(**changes: object) -> VisionTransformer:
    model = VisionTransformer(**{
        "image_size": (8, 12), "patch_size": 4, "in_channels": 3, "num_classes": 5,
        "embed_dim": 12, "depth": 2, "num_heads": 3, "mlp_dim": 17, **changes,
    })  # fmt: skip
    awaken(model)
    return model


def noise(count: int = 11) -> Pictures:
    images = torch.randint(0, 256, (count, 3, 8, 12), dtype=torch.uint8)
    return Pictures(images, torch.arange(count) % 5, tuple("abcde"))


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_what_the_head_reads_and_the_model_stays_as_it_was(kind: str) -> None:
    build, name, shape = KINDS[kind]
    model = build().train()
    head = model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    nn.init.normal_(head.weight)
    child = next(module for module in model.children() if module is not head)
    child.eval()  # as a frozen body is
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn(3, *shape[1:])
    found, labels = extract_features(model, [(images[:2], torch.tensor([4, 2])), (images[2:], torch.tensor([0]))])
    assert model.training and head.training and not child.training and not head._forward_pre_hooks
    assert_close(model.state_dict(), before, rtol=0, atol=0)  # running statistics too
    assert not found.requires_grad and labels.tolist() == [4, 2, 0]
    assert_close(head(found), model.eval()(images), rtol=1e-4, atol=1e-4)


def test_the_features_of_a_mean_pool_vit_are_its_own() -> None:
    model, images = tiny(pool="mean").double(), torch.randn(7, 3, 8, 12).double()
    found, _ = extract_features(model, [(images, torch.zeros(7).long())])
    assert_close(found, model.eval().features(images).detach(), rtol=0, atol=0)


def test_bf16_features_are_rounded_as_the_head_would_round_them() -> None:
    model, images = tiny(), torch.randn(7, 3, 8, 12)
    batches = [(images, torch.zeros(7).long())]
    found, _ = extract_features(model, batches, torch.bfloat16)
    exact, _ = extract_features(model, batches)
    assert found.dtype == torch.float32 and torch.equal(found, found.bfloat16().float())
    assert not torch.equal(found, exact.bfloat16().float())  # the body computed in bf16 too
    assert_close(found, exact, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(model.head(found), model.eval()(images), rtol=0, atol=0)


class _Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images[:, :, 0]).mean(dim=1)


def test_what_gives_no_features_is_refused() -> None:
    labels = torch.zeros(2).long()
    model = _Tokens()
    with pytest.raises(ValueError, match=r"the head read \[\(2, 3, 3\)\] of 2 pictures; expected one \(b, d\) tensor"):
        extract_features(model, [(torch.zeros(2, 3, 5, 3), labels)])
    assert model.training and not model.head._forward_pre_hooks
    with pytest.raises(ValueError, match="there are no batches"):
        extract_features(tiny(), [])
    with pytest.raises(ValueError, match=r"features of 1 of 2 pictures are nan or infinite; look at the weights"):
        extract_features(tiny(), [(torch.stack([torch.zeros(3, 8, 12), torch.full((3, 8, 12), torch.nan)]), labels)])


def test_batches_of_features_come_in_the_order_of_their_pictures() -> None:
    pictures = noise()
    rows = torch.arange(len(pictures)).float()[:, None].repeat(1, 4)
    (of_pictures, of_features) = (
        TensorBatches(data, torch.arange(len(pictures)), 4, seed=3) for data in (pictures.images, rows)
    )
    for _ in range(2):
        for (_, numbers), (found, same) in zip(of_pictures, of_features, strict=True):
            assert torch.equal(numbers, same) and torch.equal(found[:, 0], numbers.float())
    with pytest.raises(ValueError, match=r"images of shape \(11, 4\): only \(n, c, H, W\) can be augmented or norm"):
        TensorBatches(rows, pictures.labels, 4, mean=(0.5,), std=(0.5,))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of pictures whose features were computed, but for the three of a look at kept ones."""
    counts: list[int] = []
    extract = features.extract_features

    def told(*arguments: object) -> object:
        result = extract(*arguments)
        counts.extend([len(result[0])] if len(result[0]) > 3 else [])
        return result

    monkeypatch.setattr(features, "extract_features", told)
    return counts


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_features_are_computed_once(cache: Path, computed: list[int], precision: torch.dtype) -> None:
    model, part, calls = tiny(), noise(), []
    first = cached_features(model, part, PREPARE, precision, batch_size=4, progress=lambda *done: calls.append(done))
    assert calls == [(4, 11), (8, 11), (11, 11)] and not first.found and first.notes == ()
    images = PREPARE.normalise(part.images.float().mul_(1 / 255))
    expected, _ = extract_features(model, [(images, part.labels)], precision)
    assert_close(first.features, expected, rtol=0.02 if precision == torch.bfloat16 else 1e-5, atol=1e-5)
    replace_head(model, 3)  # nothing that features depend on
    other_labels = replace(part, labels=part.labels.flip(0))
    again = cached_features(model.train(), other_labels, PREPARE, precision)
    assert computed == [11] and again.found and again.notes == ()
    assert_close(again.features, first.features, rtol=0, atol=0)
    assert torch.equal(again.labels, other_labels.labels)
    kept = load_file(first.path)["features"]
    assert kept.dtype == precision and first.path.is_relative_to(cache) and not list(cache.rglob("*.part"))


def _one_bit_of_a_picture(part: Pictures) -> Pictures:
    images = part.images.clone()
    images[7, 2, 5, 11] ^= 1
    return replace(part, images=images)


def _one_bit_of_a_weight(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        bits = model.get_parameter("blocks.1.mlp.fc2.bias").view(torch.int32)
        bits[11] ^= 1
    return model


CHANGES: dict[str, Callable[[], CachedFeatures]] = {
    "a weight": lambda: cached_features(_one_bit_of_a_weight(tiny()), noise(), PREPARE),
    "a picture": lambda: cached_features(tiny(), _one_bit_of_a_picture(noise()), PREPARE),
    "the order": lambda: cached_features(tiny(), noise().part(torch.arange(11).flip(0)), PREPARE),
    "fewer": lambda: cached_features(tiny(), noise().part(torch.arange(10)), PREPARE),
    "mean": lambda: cached_features(tiny(), noise(), replace(PREPARE, mean=(0.4, 0.5, 0.61))),
    "precision": lambda: cached_features(tiny(), noise(), PREPARE, torch.bfloat16),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_makes_them_anew(cache: Path, computed: list[int], change: str) -> None:
    def same() -> CachedFeatures:
        torch.manual_seed(0)
        return cached_features(tiny(), noise(), PREPARE)

    first = same()
    assert same().found
    torch.manual_seed(0)
    changed = CHANGES[change]()
    assert not changed.found and changed.path != first.path and len(computed) == 2
    assert same().found


def test_a_change_of_code_is_noticed_by_looking_at_three_pictures(
    cache: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, part = tiny(), noise()
    first = cached_features(model, part, PREPARE)
    monkeypatch.setattr(nn.GELU, "forward", lambda self, x: nn.functional.silu(x))
    monkeypatch.setattr(nn.functional, "gelu", lambda x, approximate="none": nn.functional.silu(x))
    second = cached_features(model, part, PREPARE)
    assert not second.found and second.path == first.path and computed == [11, 11]
    assert second.notes == (
        f"the same weights give other features than {first.path}: the code was changed; computed anew",
    )
    assert not torch.allclose(first.features, second.features, atol=1e-2)
    assert cached_features(model, part, PREPARE).found


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def _other_numbers(path: Path) -> None:
    save_file({"features": torch.zeros(11, 12)}, path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "damaged"),
        (_flip, r"damaged \(its digest is another\); computed anew"),
        (_other_numbers, "digest"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"\xff" * 500), "damaged"),
        (lambda path: save_file({"other": torch.zeros(2)}, path), "damaged"),
    ],
)
def test_a_damaged_file_is_computed_anew(cache: Path, damage: Callable[[Path], object], reason: str) -> None:
    model, part = tiny(), noise()
    first = cached_features(model, part, PREPARE)
    damage(first.path)
    second = cached_features(model, part, PREPARE)
    assert not second.found
    (note,) = second.notes
    assert note.startswith(str(first.path)) and "\n" not in note
    assert re.search(reason, note)
    assert_close(second.features, first.features, rtol=0, atol=0)
    assert cached_features(model, part, PREPARE).found


def test_a_folder_that_cannot_be_used_costs_only_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    (cache / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    for _ in range(2):
        found = cached_features(tiny(), noise(), PREPARE)
        assert not found.found and found.features.shape == (11, 12)
        assert found.notes[0].startswith("features are not kept: ") and len(found.notes) == 1


def test_who_comes_second_waits_and_reads(cache: Path, computed: list[int]) -> None:
    model, part, inside, results = tiny(), noise(), threading.Event(), []

    def second() -> None:
        inside.wait(20)
        results.append(cached_features(model, part, PREPARE))

    thread = threading.Thread(target=second)
    thread.start()

    def progress(done: int, total: int) -> None:
        inside.set()
        thread.join(0.2)  # long enough for a second that does not wait to begin

    first = cached_features(model, part, PREPARE, batch_size=6, progress=progress)
    thread.join(20)
    assert computed == [11] and not first.found and results[0].found
    assert_close(results[0].features, first.features, rtol=0, atol=0)


def test_files_are_known_by_their_bytes(
    tmp_path: Path, cache: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    digested: list[str] = []
    file_digest = contents._file_digest
    monkeypatch.setattr(contents, "_file_digest", lambda path: digested.append(path.name) or file_digest(path))

    def part(root: Path) -> PictureFiles:
        paths = tuple(sorted(root.rglob("*.png")))
        return PictureFiles(paths, torch.arange(len(paths)) % 2, ("cat", "dog"))

    root, model = write_folder(tmp_path / "set", {"cat": 4, "dog": 3}), tiny()

    def look(root: Path = root) -> CachedFeatures:
        return cached_features(model, part(root), PREPARE, batch_size=4, workers=0)

    first = look()
    in_memory = torch.stack([PREPARE.pixels(picture(seed)) for seed in range(7)])
    expected, _ = extract_features(model, [(PREPARE.normalise(in_memory.float().mul_(1 / 255)), first.labels)])
    assert_close(first.features, expected, rtol=1e-5, atol=1e-5)
    assert len(digested) == 7
    assert look().found and len(digested) == 7
    assert look(root.rename(tmp_path / "moved")).found
    moved = tmp_path / "moved"
    path = moved / "cat" / "002.png"
    content = path.read_bytes()
    path.write_bytes(content)  # other times, the same bytes
    assert look(moved).found and computed == [7] and digested[14:] == ["002.png"]
    path.write_bytes(encoded(picture(70)))
    changed = look(moved)
    assert not changed.found and changed.notes == () and computed == [7, 7]
    moves = (changed.features - first.features).abs().amax(dim=1) > 1e-3
    assert moves.tolist() == [False, False, True, False, False, False, False]
    path.unlink()
    with pytest.raises(OSError, match=r"002.png: cannot be read: .*; was it moved or changed\?"):
        cached_features(model, replace(part(moved), paths=(path,), labels=torch.zeros(1).long()), PREPARE)


def test_a_digest_knows_type_and_shape() -> None:
    zeros = torch.zeros(2, 6)
    others = [zeros, zeros.reshape(3, 4), zeros.view(torch.int32), zeros.mT, torch.zeros(()), torch.full((2, 6), -0.0)]
    assert len({contents.tensor_digest(tensor) for tensor in others}) == len(others)
    assert contents.tensor_digest(torch.arange(6).reshape(2, 3).mT) == contents.tensor_digest(
        torch.tensor([[0, 3], [1, 4], [2, 5]])
    )
