"""Images in HDF5 and Parquet files are stimuli as those of a folder are, a few read at a time."""

import tracemalloc
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nrp_onnx import extract
from nrp_onnx.decoding_pool import DecodedImages
from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.image_sets import is_image_set, open_image_set
from nrp_onnx.recordings import load_recordings
from tests.command_line import assert_user_error, nrp_onnx

N = 80
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 10, 12, 3), np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("a/pictures", data=PIXELS, chunks=(7, 10, 12, 3), compression="gzip")
        file["a/rates"] = np.zeros((N, 4))
        file["a/stimulus_id"] = [f"s{i}" for i in range(N)]
    return path


def _hugging_face(path: Path, **columns: object) -> Path:
    """As `datasets` writes it: a struct, in two row groups."""
    images = pa.array(
        [{"bytes": _png(image), "path": f"p{i}.png"} for i, image in enumerate(PIXELS)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    pq.write_table(pa.table({"image": images, **columns}), path, row_group_size=N // 2)
    return path


def _plain(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table({"image": [_png(image) for image in PIXELS], **columns}), path)
    return path


def test_every_kind_of_file_gives_its_images_and_ids(tmp_path: Path) -> None:
    rows = list(map(str, range(N)))
    for path, ids in (
        (_hdf5(tmp_path / "a.h5"), [f"s{i}" for i in range(N)]),
        (_hugging_face(tmp_path / "a.parquet"), [f"p{i}.png" for i in range(N)]),
        (_hugging_face(tmp_path / "b.parquet", id=list(range(100, 100 + N))), rows_from(100)),
        (_plain(tmp_path / "c.parquet"), rows),
        (_plain(tmp_path / "d.parquet", stimulus_id=[f"x{i}" for i in range(N)]), None),
    ):
        assert is_image_set(path)
        found = open_image_set(path)
        assert list(found.ids) == (ids or [f"x{i}" for i in range(N)])
        with DecodedImages(found.images) as images:
            taken = images.take(N + 1)
        np.testing.assert_array_equal([pixels for _, pixels in taken], PIXELS)
        # Out of order, too: back, and across row groups.
        for row in (70, 3, 41, 40, 0, N - 1):
            np.testing.assert_array_equal(found.images[row].decoded().pixels, PIXELS[row])


def rows_from(start: int) -> list[str]:
    return [str(row) for row in range(start, start + N)]


def test_extraction_gives_what_a_folder_gives(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(tmp_path / "images" / f"{i:02d}.png")
    sources: dict[str, Path | str] = {
        "folder": tmp_path / "images",
        "hdf5": f"{_hdf5(tmp_path / 'a.h5')}:a/pictures",
        "parquet": _plain(tmp_path / "a.parquet"),
    }
    arrays = {}
    for name, source in sources.items():
        run = nrp_onnx(
            "extract", model_path, "--images", source, "-o", tmp_path / name, "--layers", "2"
        )
        assert run.returncode == 0, run.stderr
        assert "80 images" in run.stdout
        # The same files, under the same fingerprint: nothing is computed again.
        arrays[name] = extract(model_path, source, tmp_path / name, layers="2")["2"].array()
    np.testing.assert_array_equal(arrays["hdf5"], arrays["folder"])
    np.testing.assert_array_equal(arrays["parquet"], arrays["folder"])


def test_recordings_are_imported_from_a_set_in_the_order_of_its_rows(tmp_path: Path) -> None:
    rates = np.random.default_rng(0).random((2, N))
    np.save(tmp_path / "rates.npy", rates)
    for source, first in (
        (_hdf5(tmp_path / "a.h5"), "s0"),
        (_hugging_face(tmp_path / "a.parquet"), "p0.png"),
    ):
        out = tmp_path / f"{source.stem}{source.suffix[1:]}"
        run = nrp_onnx(
            "recordings", "import", source, tmp_path / "rates.npy", "--axes", "site,stimulus",
            "--region", "V4", "-o", out,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert f"in the order of its rows: '{first}'" in run.stderr
        found = load_recordings(out)
        assert found.stimulus_ids[0] == first
        np.testing.assert_allclose(found.averages.T, rates, rtol=1e-6)
        for place in (0, 2, 10, N - 1):
            image = Image.open(found.stimulus_paths[place])
            np.testing.assert_array_equal(np.asarray(image), PIXELS[place])
        assert found.provenance["stimulus_order"] == f"rows of {source.name}"


def test_a_large_set_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """64 MB of images, in one row group, and in one HDF5 data set."""
    n, side = 340, 256
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (side, side, 3), np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("x", (n, side, side, 3), np.uint8, chunks=(1, side, side, 3))
        for row in range(n):
            made[row] = noise
    pq.write_table(
        pa.table({"image": [_png(noise)] * n}),
        tmp_path / "a.parquet",
        use_dictionary=False,
        write_batch_size=16,  # images a page, which is read as a whole
    )
    for name in ("a.h5", "a.parquet"):
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        with DecodedImages(open_image_set(tmp_path / name).images) as images:
            count, most = 0, 0
            while taken := images.take(8):
                count += len(taken)
                most = max(most, pa.total_allocated_bytes() - before)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == n
        assert peak < 40e6, name
        assert most < 40e6, name


def test_what_is_no_set_of_images_is_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    missing = pa.array(
        [{"bytes": None, "path": "p.png"}],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    pq.write_table(pa.table({"image": missing}), tmp_path / "paths.parquet")
    with pytest.raises(RecordingsError, match=r"text\.parquet: there is no column of images"):
        open_image_set(tmp_path / "text.parquet")
    for name in ("damaged.parquet", "damaged.h5"):
        with pytest.raises(RecordingsError, match=f"{name}: the images cannot be read"):
            open_image_set(tmp_path / name)
    with pytest.raises(RecordingsError, match="image 0: the image is not in the file"):
        open_image_set(tmp_path / "paths.parquet").images[0].content()
    with pytest.raises(RecordingsError, match="comes twice"):
        open_image_set(_plain(tmp_path / "twice.parquet", id=["a"] * N))
    path = _hdf5(tmp_path / "a.h5")
    with pytest.raises(OptionError, match=r"no such images.*'a/pictures'.*'a/rates'"):
        open_image_set(Path(f"{path}:a/rates"))


def test_images_from_outside_an_hdf5_file_are_refused(model_path: Path, tmp_path: Path) -> None:
    _hdf5(tmp_path / "elsewhere.h5")
    (tmp_path / "raw").write_bytes(PIXELS.tobytes())
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["external"] = h5py.ExternalLink("elsewhere.h5", "/a/pictures")
        file["soft"] = h5py.SoftLink("/external")
        layout = h5py.VirtualLayout(PIXELS.shape, np.uint8)
        layout[...] = h5py.VirtualSource("elsewhere.h5", "a/pictures", PIXELS.shape)
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset(
            "stored", PIXELS.shape, np.uint8, external=[(str(tmp_path / "raw"), 0, PIXELS.nbytes)]
        )
    for key in ("external", "soft", "virtual", "stored"):
        run = nrp_onnx(
            "extract",
            model_path,
            "--images",
            f"{tmp_path / 'links.h5'}:{key}",
            "-o",
            tmp_path / "o",
        )
        assert_user_error(run, "no such images", "in the file itself", repr(key))
    with pytest.raises(OptionError, match="0 sets of images"):
        open_image_set(tmp_path / "links.h5")


def test_ids_that_leave_their_folder_are_not_written(tmp_path: Path) -> None:
    np.save(tmp_path / "rates.npy", np.zeros((1, N)))
    ids = [f"../{i}" for i in range(N)]
    run = nrp_onnx(
        "recordings", "import", _plain(tmp_path / "a.parquet", id=ids), tmp_path / "rates.npy",
        "--axes", "site,stimulus", "--region", "V4", "-o", tmp_path / "out",
    )  # fmt: skip
    assert_user_error(run, "are no names of files", "../0")
    assert not (tmp_path / "out").exists()
