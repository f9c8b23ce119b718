"""Images as they are: every kind becomes the uint8 RGB that a person sees, or is refused in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nrp_onnx.activations.images import ImageFolder
from nrp_onnx.decoding import decode, decode_image, image_size, natural_order
from nrp_onnx.decoding_pool import DecodedImages
from nrp_onnx.errors import RecordingsError
from tests.command_line import assert_user_error, nrp_onnx

#: 13 rows and 20 columns: a picture that is turned has another shape.
HEIGHT, WIDTH = 13, 20
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = COLOURS[..., 0]


def _saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_16_bits_are_divided_by_257(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    for name in ("a.png", "a.tif"):
        found = decode_image(_saved(Image.fromarray(values), tmp_path / name))
        np.testing.assert_array_equal(found, np.rint(values / 257)[..., None].repeat(3, axis=2))
    (tmp_path / "a.pgm").write_bytes(
        b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + values.astype(">u2").tobytes()
    )
    np.testing.assert_array_equal(decode_image(tmp_path / "a.pgm"), found)


def test_floats_from_0_to_1_are_times_255(tmp_path: Path) -> None:
    values = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    found = decode_image(_saved(Image.fromarray(values), tmp_path / "a.tif"))
    np.testing.assert_array_equal(found, np.rint(values * 255.0)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("wrong", [-0.5, 255, np.nan])
def test_floats_of_another_range_are_refused_with_it(tmp_path: Path, wrong: float) -> None:
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    values[2, 3] = wrong
    path = _saved(Image.fromarray(values), tmp_path / "a.tif")
    with pytest.raises(
        RecordingsError, match=r"a\.tif: it is not clear.* Save it with 8 or 16"
    ) as e:
        decode_image(path)
    assert f"{wrong:g}" in str(e.value)


def test_integers_of_32_bits_are_refused(tmp_path: Path) -> None:
    path = _saved(Image.fromarray(np.full((4, 4), 70000, np.int32)), tmp_path / "a.tif")
    with pytest.raises(RecordingsError, match="from 70000 to 70000"):
        decode_image(path)


def test_grey_palettes_and_bilevel_are_as_a_person_sees_them(tmp_path: Path) -> None:
    grey = GREY[..., None].repeat(3, axis=2)
    few = (GREY // 64 * 64).astype(np.uint8)
    palette = Image.fromarray(few).convert("P")
    bilevel = Image.fromarray(few > 100)
    for image, expected, mode, bits in (
        (Image.fromarray(GREY), grey, "L", 8),
        (palette, few[..., None].repeat(3, axis=2), "P", 8),
        (bilevel, (255 * (few > 100)).astype(np.uint8)[..., None].repeat(3, axis=2), "1", 1),
    ):
        found = decode(_saved(image, tmp_path / "a.png"), "a.png")
        np.testing.assert_array_equal(found.pixels, expected)
        assert (found.mode, found.bits, found.transparent) == (mode, bits, False)


def test_cmyk_is_ink_on_white(tmp_path: Path) -> None:
    ink = np.zeros((4, 6, 4), np.uint8)
    ink[:, 3:, 1:3] = 255  # magenta and yellow are red
    path = _saved(Image.fromarray(ink, "CMYK"), tmp_path / "a.tif")
    found = decode_image(path)
    np.testing.assert_array_equal(found[0, 0], (255, 255, 255))
    np.testing.assert_array_equal(found[0, 5], (255, 0, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_over_mid_grey_whatever_is_under_them(
    tmp_path: Path, mode: str
) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    alpha[0] = 0
    colours = COLOURS if mode == "RGBA" else GREY[..., None]
    path = _saved(Image.fromarray(np.dstack([colours, alpha]), mode), tmp_path / "a.png")
    found = decode(path, path)
    share = alpha[..., None] / 255
    expected = np.rint(share * colours + (1 - share) * 128)
    np.testing.assert_array_equal(found.pixels, np.broadcast_to(expected, (HEIGHT, WIDTH, 3)))
    np.testing.assert_array_equal(found.pixels[0], 128)
    assert found.transparent


def test_a_colour_that_is_transparent_is_so_in_palettes_and_in_16_bits(tmp_path: Path) -> None:
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((2, 1), 0)
    deep = Image.fromarray(np.full((4, 6), 257 * 9, np.uint16))
    deep.putpixel((2, 1), 77)
    for image, clear, other in ((palette, 0, (10, 20, 30)), (deep, 77, (9, 9, 9))):
        found = decode(_saved(image, tmp_path / "a.png", transparency=clear), "a.png")
        assert found.transparent
        np.testing.assert_array_equal(found.pixels[1, 2], 128)
        np.testing.assert_array_equal(found.pixels[0, 0], other)


def test_opaque_images_with_alpha_are_untouched(tmp_path: Path) -> None:
    opaque = np.dstack([COLOURS, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    found = decode(_saved(Image.fromarray(opaque), tmp_path / "a.png"), "a.png")
    np.testing.assert_array_equal(found.pixels, COLOURS)
    assert not found.transparent


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_an_image_upright(tmp_path: Path, orientation: int) -> None:
    """What a camera held in each way stores: the inverse of the turn, by NumPy."""
    stored = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS, 1),
        7: COLOURS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOURS, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    for name in ("a.png", "a.tif", "a.webp"):
        path = _saved(image, tmp_path / name, exif=exif, lossless=True)
        np.testing.assert_array_equal(decode_image(path), COLOURS)
    path = _saved(image, tmp_path / "a.jpg", exif=exif, quality=95)
    assert image_size(path) == (WIDTH, HEIGHT)
    assert decode_image(path).shape == COLOURS.shape


def test_more_than_one_frame_is_refused(tmp_path: Path) -> None:
    first, second = Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)
    for name in ("a.gif", "a.png", "a.tif", "a.webp"):
        path = _saved(first, tmp_path / name, save_all=True, append_images=[second])
        with pytest.raises(RecordingsError, match=f"{name}: the file holds more than one image.*2"):
            decode_image(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """stim1, stim2 and stim10, and what macOS leaves beside them."""
    images = tmp_path / "images"
    images.mkdir()
    for number in (1, 2, 10):
        Image.fromarray(COLOURS + np.uint8(number)).save(images / f"stim{number}.png")
    (images / "._stim1.png").write_bytes(b"no image")
    (images / ".DS_Store").write_bytes(b"no image")
    return images


def test_hidden_files_are_skipped_by_every_command_alike(
    folder: Path, model_path: Path, tmp_path: Path
) -> None:
    assert ImageFolder(folder).stimulus_ids == ("stim1.png", "stim10.png", "stim2.png")
    run = nrp_onnx("extract", model_path, "--images", folder, "-o", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "3 images" in run.stdout
    np.save(tmp_path / "rates.npy", np.random.default_rng(0).random((2, 3)))
    run = nrp_onnx(
        "recordings", "import", folder, tmp_path / "rates.npy", "--axes", "site,stimulus",
        "--region", "V4", "-o", tmp_path / "recordings",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "by their numbers: 'stim1.png', 'stim2.png', 'stim10.png'" in run.stderr
    table = (tmp_path / "recordings" / "stimuli.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in table[1:]] == ["stim1", "stim2", "stim10"]


def test_names_of_several_kinds_are_in_the_order_of_text() -> None:
    assert natural_order(["im2_b.png", "im10_a.png"]) == ["im10_a.png", "im2_b.png"]
    assert natural_order(["b/9.png", "b/10.png"]) == ["b/9.png", "b/10.png"]
    # 01 and 1 are the same number.
    assert natural_order(["s1.png", "s01.png", "s2.png"]) == ["s01.png", "s1.png", "s2.png"]


def test_extraction_says_what_transparent_images_are_shown_on_and_keeps_it(
    folder: Path, model_path: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    clear = np.dstack([COLOURS, np.zeros((HEIGHT, WIDTH), np.uint8)])
    Image.fromarray(clear).save(folder / "stim3.png")
    run = nrp_onnx("extract", model_path, "--images", folder, "-o", tmp_path / "out")
    assert "1 images have transparent pixels: shown on mid grey (128, 128, 128)" in run.stderr
    metadata = pq.read_schema(next((tmp_path / "out").glob("*.parquet"))).metadata
    kept = [json.loads(value) for value in metadata.values() if b"transparent_over" in value]
    assert kept[0]["decoding"]["transparent_over"] == [128, 128, 128]


def test_activations_of_other_decoding_rules_are_extracted_anew(
    folder: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nrp_onnx.activations import extract
    from nrp_onnx.decoding import RULES

    arguments = ("extract", model_path, "--images", folder, "-o", tmp_path / "out")
    assert nrp_onnx(*arguments).returncode == 0
    assert "there already" in nrp_onnx(*arguments).stderr
    monkeypatch.setattr(extract, "RULES", RULES | {"version": -1})
    assert_user_error(nrp_onnx(*arguments), "fingerprint")


def test_an_animation_ends_an_extraction_in_one_line(
    folder: Path, model_path: Path, tmp_path: Path
) -> None:
    first, second = Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)
    first.save(folder / "stim4.gif", save_all=True, append_images=[second])
    run = nrp_onnx("extract", model_path, "--images", folder, "-o", tmp_path / "out")
    assert_user_error(run, "stim4.gif", "more than one image")


def test_the_pool_gives_each_image_or_its_fault_in_order(folder: Path) -> None:
    paths = [folder / "stim1.png", folder / "._stim1.png", folder / "stim10.png"]
    with DecodedImages(paths) as images:
        found = [images.next_one(2) for _ in range(4)]
    assert [None if one is None else one[0] for one in found] == [0, 1, 2, None]
    assert isinstance(found[1] and found[1][1], RecordingsError)


def test_the_images_of_the_shared_cases_are_as_its_readme_says(
    shared: Path, model_path: Path, tmp_path: Path
) -> None:
    cases = shared / "cases" / "images"
    ramp = decode(cases / "ramp_16_bit.png", "ramp")
    assert (ramp.bits, len(np.unique(ramp.pixels)) > 50) == (16, True)
    values = np.asarray(Image.open(cases / "float_0_to_1.tif"))
    grey = np.rint(values * 255.0)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(decode_image(cases / "float_0_to_1.tif"), grey)
    black, red = (decode_image(cases / f"alpha_over_{name}.png") for name in ("black", "red"))
    np.testing.assert_array_equal(black, red)
    turned = decode_image(cases / "exif_turned.jpg").astype(int)
    twin = decode_image(cases / "exif_upright_twin.jpg")
    assert np.abs(turned - twin).mean() < 3  # each was compressed on its own
    (tmp_path / "images").mkdir()
    shutil.copy(cases / "animation.gif", tmp_path / "images")
    run = nrp_onnx("extract", model_path, "--images", tmp_path / "images", "-o", tmp_path / "out")
    assert_user_error(run, "animation.gif", "more than one image")
