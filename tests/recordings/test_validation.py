import json

import numpy as np
from PIL import Image

from nrp_onnx.recordings import (
    describe_recordings,
    import_arrays,
    load_recordings,
    validate_recordings,
)
from tests.command_line import nrp_onnx


def test_a_good_folder_has_no_problems(folder):
    assert validate_recordings(folder) == []


def test_all_problems_are_listed_at_once(folder):
    (folder / "recordings.json").write_text("{}")
    (folder / "sites.csv").write_text("site_id,area\na,V4\n")
    whole = (folder / "stimuli" / "dog.png").read_bytes()
    (folder / "stimuli" / "dog.png").write_bytes(whole[: len(whole) // 2])
    (folder / "stimuli" / "eel.png").write_bytes(b"no image")
    (folder / "stimuli" / "owl.png").unlink()
    problems = validate_recordings(folder)
    for part in (
        "recordings.json: the key name is missing",
        "recordings.json: the key simulated is missing",
        "sites.csv: the column region is missing",
        "1 of 4 images are missing",
        f"dog.png: the image does not open; expected a whole image (PNG, JPEG, ...); "
        f"found {len(whole) // 2} bytes",
        "eel.png: the image does not open; expected a whole image (PNG, JPEG, ...); found 8 bytes",
    ):
        assert sum(part in problem for problem in problems) == 1, part
    assert not any("cat.png" in problem for problem in problems)


def test_a_description_counts(folder):
    facts = describe_recordings(load_recordings(folder))
    assert facts["image_sizes"] == {"12x8": 4}
    assert facts["regions"] == {"V4": 2, "IT": 1}
    assert facts["animals"] == {"one": 1, "two": 2}
    assert facts["repetitions"] == {"min": 2, "median": 3.0, "max": 3}
    assert facts["missing_share"] == 1 / 36
    assert facts["labels"] == {
        "object_name": {"n_classes": 3, "classes": {"bird": 1, "fish": 1, "mammal": 2}}
    }
    assert (facts["n_stimuli"], facts["n_sites"], facts["simulated"]) == (4, 3, True)


def _as_folder(images, folder):
    """A folder of recordings with images of Pillow's, by name."""
    (folder.parent / "pictures").mkdir()
    for name, (image, options) in images.items():
        image.save(folder.parent / "pictures" / name, **options)
    rates = np.random.default_rng(0).random((2, len(images)))
    np.save(folder.parent / "rates.npy", rates)
    import_arrays(
        folder.parent / "pictures",
        folder.parent / "rates.npy",
        folder,
        axes=["site", "stimulus"],
        region="V4",
    )
    return folder


def test_validate_counts_kinds_of_images_and_names_those_that_are_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = np.dstack([pixels, np.full((9, 7), 100, np.uint8)])
    grey = np.uint16(pixels[..., 0])
    folder = _as_folder(
        {
            "a.png": (Image.fromarray(pixels), {}),
            "b.bmp": (Image.fromarray(pixels), {}),
            "c.png": (Image.fromarray(np.rot90(pixels).copy()), {"exif": turned}),
            "d.png": (Image.fromarray(grey * np.uint16(257)), {}),
            "e.png": (Image.fromarray(pixels[..., 0]), {}),
            "f.png": (Image.fromarray(clear), {}),
        },
        tmp_path / "recordings",
    )
    run = nrp_onnx("recordings", "validate", folder, "--json")
    assert json.loads(run.stdout)["images"] == {
        "modes": {"RGB": 3, "I;16": 1, "L": 1, "RGBA": 1},
        "bits": {"8": 5, "16": 1},
        "transparent": 1,
        "turned": 1,
        # BMP, a turned PNG, and 16 bits that say what 8 bits say.
        "duplicates": 3,
        "duplicate_pairs": [["a.png", "b.bmp"], ["a.png", "c.png"], ["d.png", "e.png"]],
    }
    lines = nrp_onnx("recordings", "validate", folder).stdout.splitlines()
    assert lines == [
        "no problems",
        "images: 3 RGB, 1 I;16, 1 L, 1 RGBA; 5 of 8 bits, 1 of 16 bits a channel",
        "with transparent pixels, shown on mid grey: 1",
        "turned upright, as EXIF says: 1",
        "with the pixels of another: 3, such as 'b.bmp' as 'a.png', 'c.png' as 'a.png', "
        "'e.png' as 'd.png'",
    ]


def test_an_animation_in_a_folder_is_a_problem(folder):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "stimuli" / "owl.gif", save_all=True, append_images=frames[1:])
    (folder / "stimuli" / "owl.gif").rename(folder / "stimuli" / "owl.png")
    (problem,) = validate_recordings(folder)
    assert (
        "owl.png: the file holds more than one image; expected one frame or page; found 2"
        in problem
    )
