import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from tests.data.make import encoded, picture
from vitscratch.data import PictureError, open_picture


def pixels(data: bytes, channels: int = 3) -> np.ndarray:
    opened = open_picture(data, channels=channels)
    assert opened.mode == ("RGB" if channels == 3 else "L")
    return np.asarray(opened)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG"])
def test_a_plain_picture_comes_as_pillow_reads_it(form: str, tmp_path: Path) -> None:
    data = encoded(picture(1), form)
    (tmp_path / "x").write_bytes(data)
    with Image.open(tmp_path / "x") as expected:
        assert (np.asarray(expected.convert("RGB")) == pixels(data)).all()
    assert np.asarray(open_picture(tmp_path / "x")).shape == (11, 13, 3)


def test_transparency_is_laid_on_white() -> None:
    colours = np.zeros((2, 3, 4), np.uint8)
    colours[0, 0] = (200, 0, 100, 255)
    colours[0, 1] = (200, 0, 100, 0)
    colours[0, 2] = (200, 0, 100, 128)
    found = pixels(encoded(Image.fromarray(colours)))
    assert found[0, 0].tolist() == [200, 0, 100] and found[0, 1].tolist() == [255, 255, 255]
    assert np.abs(found[0, 2].astype(int) - [227, 127, 177]).max() <= 1
    grey, alpha = (Image.fromarray(np.array([values], np.uint8)) for values in ((10, 10), (0, 255)))
    assert pixels(encoded(Image.merge("LA", [grey, alpha])), 1).tolist() == [[255, 10]]


def test_a_transparent_palette_is_laid_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 250, 10, 20])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG", transparency=0)).tolist() == [[[255, 255, 255], [250, 10, 20]]]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_and_not_clipped(form: str) -> None:
    wide = np.array([[0, 257, 32768, 65535, 300]], np.uint16)
    for channels in (1, 3):
        found = pixels(encoded(Image.fromarray(wide), form), channels).reshape(5, -1)[:, 0]
        assert found.tolist() == [0, 1, 128, 255, 1]


def test_pixels_of_unknown_meaning_are_refused() -> None:
    with pytest.raises(PictureError, match="32-bit pixels, mode F"):
        open_picture(encoded(Image.fromarray(np.ones((3, 5), np.float32)), "TIFF"))


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "P", "LAB"])
def test_other_modes_become_rgb_or_grey(mode: str) -> None:
    data = encoded(picture(2, mode=mode), "TIFF")
    assert pixels(data).shape == (11, 13, 3) and pixels(data, 1).shape == (11, 13)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture(3)
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    expected = stored.transpose(inverse[orientation]) if orientation > 1 else stored
    assert (pixels(encoded(stored, "PNG", exif=exif)) == np.asarray(expected)).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_matter() -> None:
    data = encoded(picture(4), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff" + b"x" * 50)
    assert pixels(data).shape == (11, 13, 3)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (5, 7), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


def test_what_is_no_picture_is_said_in_a_few_words(tmp_path: Path) -> None:
    def reason(data: bytes) -> str:
        (tmp_path / "x.jpg").write_bytes(data)
        with pytest.raises(PictureError) as error:
            open_picture(tmp_path / "x.jpg")
        return str(error.value)

    assert reason(b"") == "empty: 0 bytes"
    assert reason(b"<!DOCTYPE HTML>\n<html>") == "no picture: it holds an HTML page"
    assert reason(b"once upon a time") == "no picture: it holds text"
    assert reason(b"\x80\x04\x95abc") == "no picture: no format that Pillow knows"
    data = encoded(picture(5, (97, 89)), "JPEG")
    assert "truncated" in reason(data[: len(data) // 2])
    assert reason(encoded(picture(5, (97, 89)))[:999]).startswith("cannot be decoded: ")
    with pytest.raises(PictureError, match="cannot be read: No such file"):
        open_picture(tmp_path / "absent.jpg")
    with pytest.raises(PictureError, match="not an ordinary file"):
        open_picture(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(PictureError, match="not an ordinary file"):
        open_picture(tmp_path / "x.jpg")


def test_large_pictures_are_refused_by_their_header() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    bomb = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0" + struct.pack("<HH", 65535, 65535)
    with pytest.raises(PictureError, match=r"too large: 65,535 x 65,535 px is over the limit of 89,478,485 px"):
        open_picture(bomb + b"\0\2\2L\1\0;")
    with pytest.raises(PictureError, match=r"too large: 13 x 11 px is over the limit of 142 px"):
        open_picture(encoded(picture(0)), max_pixels=142)
    assert open_picture(encoded(picture(0)), max_pixels=143).size == (13, 11)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_blind_eye_for_broken_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES is True"):
        open_picture(encoded(picture(0)))
