"""What is extracted, against PyTorch; what is there already; what is wrong with a folder or an image."""

import json
import resource
import shutil
import subprocess
import sys
from errno import ENOSPC
from itertools import count
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from nrp_onnx.activations import layer_writer
from nrp_onnx.api import extract_with
from nrp_onnx.errors import OutputError, RecordingsError
from nrp_onnx.notes import Notes
from tests.activations.conftest import options, rows
from tests.command_line import assert_user_error, nrp_onnx


def test_rows_are_the_images_in_order(activations: Path, images: Path, network: nn.Module) -> None:
    """Also of images that are resized and grey, which are run apart from the others of a batch."""
    frame = pd.read_parquet(activations / "1.parquet")
    names = sorted(path.name for path in images.iterdir())
    assert list(frame["stimulus_id"]) == names
    for row in (0, 1, 2, 69):
        image = Image.open(images / names[row]).convert("RGB")
        x = torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        if x.shape[2:] != (32, 32):
            x = nn.functional.interpolate(x, (32, 32), mode="bilinear", antialias=True)
        with torch.no_grad():
            expected = network[1](network[0](x)).flatten().numpy()  # type: ignore[index]
        np.testing.assert_allclose(frame["activation"][row], expected, atol=2e-5)


def test_the_file_says_what_it_holds(activations: Path) -> None:
    facts = json.loads(pq.read_schema(activations / "3.parquet").metadata[b"nrp_onnx.activations"])
    assert facts["layer"] == "3"
    assert facts["shape"] == [12, 8, 8]
    assert facts["layout"] == "NCHW"
    assert facts["reduction"] == "none"
    assert facts["provider"] == "CPUExecutionProvider"
    assert len(facts["fingerprint"]) == 64


def test_row_groups_do_not_follow_the_batches(activations: Path) -> None:
    metadata = pq.read_metadata(activations / "1.parquet")
    rows = [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]
    assert rows == [16, 16, 16, 16, 6]


def test_nothing_is_extracted_twice(model_path: Path, images: Path, activations: Path) -> None:
    before = (activations / "1.parquet").stat().st_mtime_ns
    notes = Notes()
    extract_with(model_path, images, activations, options(), notes)
    assert any("nothing is extracted" in note for note in notes.said)
    assert (activations / "1.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "left",
    [
        "1/.4711.part",  # the file of a layer that is in its place
        "3/.4711.part",  # a file that was being joined
        "3/0123456789abcdef/000000000-000000070.arrow",  # a range of another model
    ],
)
def test_what_a_killed_run_left_is_removed(
    model_path: Path, images: Path, activations: Path, tmp_path: Path, left: str
) -> None:
    shutil.copy(activations / "1.parquet", tmp_path)
    path = tmp_path / ".part" / left
    path.parent.mkdir(parents=True)
    path.write_bytes(b"torn")
    extract_with(model_path, images, tmp_path, options())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "1.parquet", "3.parquet"]
    assert (tmp_path / "3.parquet").read_bytes() == (activations / "3.parquet").read_bytes()


def test_other_activations_are_kept_unless_told_otherwise(
    model_path: Path, images: Path, activations: Path, tmp_path: Path
) -> None:
    shutil.copy(activations / "1.parquet", tmp_path)
    with pytest.raises(OutputError, match=r"other activations.*--overwrite"):
        extract_with(model_path, images, tmp_path, options(reduce="mean"))
    assert (tmp_path / "1.parquet").read_bytes() == (activations / "1.parquet").read_bytes()
    extract_with(model_path, images, tmp_path, options(reduce="mean", overwrite=True))
    assert len(pd.read_parquet(tmp_path / "1.parquet")["activation"][0]) == 8


@pytest.mark.parametrize("version", ["0", None])
def test_files_of_another_version_are_kept(
    model_path: Path, images: Path, tmp_path: Path, version: str | None
) -> None:
    table = pq.read_table(pd_file(tmp_path / "1.parquet"))
    if version is not None:
        facts = json.dumps({"store_version": 0, "fingerprint": "0"})
        pq.write_table(
            table.replace_schema_metadata({"nrp_onnx.activations": facts}), tmp_path / "1.parquet"
        )
    before = (tmp_path / "1.parquet").read_bytes()
    with pytest.raises(OutputError, match=r"1\.parquet: .*another version"):
        extract_with(model_path, images, tmp_path, options(overwrite=True))
    assert (tmp_path / "1.parquet").read_bytes() == before


def pd_file(path: Path) -> Path:
    pd.DataFrame({"mine": [1, 2]}).to_parquet(path)
    return path


def test_two_processes_in_one_folder(model_path: Path, images: Path, tmp_path: Path) -> None:
    with filelock.FileLock(tmp_path / ".lock"):
        run = nrp_onnx("extract", model_path, "--images", images, "-o", tmp_path)
    assert_user_error(run, tmp_path, "another process is extracting into this folder")
    assert [path.name for path in tmp_path.iterdir()] in ([".lock"], [])


def test_a_folder_that_cannot_be_made(model_path: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    run = nrp_onnx("extract", model_path, "--images", images, "-o", tmp_path / "file" / "out")
    assert_user_error(run, tmp_path / "file" / "out", "cannot be written", "-o")


@pytest.mark.parametrize("writer", [layer_writer.RangeWriter, layer_writer.LayerWriter])
def test_a_full_disk_loses_nothing(
    model_path: Path, images: Path, activations: Path, tmp_path: Path, monkeypatch: Any, writer: Any
) -> None:
    """While ranges are written, and while they are joined."""
    calls, whole = count(), writer.write

    def write(self: Any, *given: Any) -> None:
        if next(calls) == 2:
            raise OSError(ENOSPC, "No space left on device")
        whole(self, *given)

    monkeypatch.setattr(writer, "write", write)
    with pytest.raises(OutputError, match=r"the disk is full.*goes on where it stopped"):
        extract_with(model_path, images, tmp_path, options())
    assert len(list(tmp_path.glob("*.parquet"))) < 2
    assert not list(tmp_path.rglob(".*.part"))
    monkeypatch.undo()
    extract_with(model_path, images, tmp_path, options())
    for name in ("1.parquet", "3.parquet"):
        assert (tmp_path / name).read_bytes() == (activations / name).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_file_that_may_not_grow(
    model_path: Path, images: Path, activations: Path, tmp_path: Path
) -> None:
    """The kernel itself refuses to write, in the middle of a range."""
    command = [sys.executable, "-m", "nrp_onnx", "extract", model_path, "--images", images]
    command += ["-o", tmp_path, "--layers", "1,3", "--reduce", "none", "--preprocess", "tf"]
    limit = 300_000

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    run = subprocess.run(
        [*map(str, command), "--device", "cpu"],
        capture_output=True, text=True, check=False, preexec_fn=limited, timeout=300,
    )  # fmt: skip
    assert_user_error(run, tmp_path, "cannot be written", "File too large")
    assert not list(tmp_path.glob("*.parquet"))
    extract_with(model_path, images, tmp_path, options())
    assert (tmp_path / "1.parquet").read_bytes() == (activations / "1.parquet").read_bytes()


def test_what_does_not_fit_is_refused(
    model_path: Path, images: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    # 70 images of (8, 16, 16) and (12, 8, 8) are 788,480 bytes; of 2 x 2 maps, 22,400. Both layers are
    # there twice while their ranges are joined.
    def with_free(n_bytes: int) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=n_bytes)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with_free(50_000)
    with pytest.raises(OutputError, match=r"do not fit on this disk.*--reduce avgpool:2"):
        extract_with(model_path, images, tmp_path, options())
    with_free(40_000)
    with pytest.raises(OutputError, match=r"do not fit on this disk.*--reduce mean"):
        extract_with(model_path, images, tmp_path, options())
    with_free(1_500_000)
    with pytest.raises(OutputError, match=r"do not fit on this disk; expected 1.5 MiB free"):
        extract_with(model_path, images, tmp_path, options())
    assert not list(tmp_path.glob("*.parquet"))


@pytest.fixture
def with_bad_images(images: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bad"
    shutil.copytree(images, folder)
    (folder / "20.png").write_bytes(b"")
    (folder / "41.png").write_bytes((images / "41.png").read_bytes()[:500])
    return folder


def test_bad_images_are_named(model_path: Path, with_bad_images: Path, tmp_path: Path) -> None:
    run = nrp_onnx("extract", model_path, "--images", with_bad_images, "-o", tmp_path / "out")
    assert_user_error(run, "20.png", "does not open", "0 bytes", "--skip-bad-stimuli")


def test_bad_images_are_left_out_if_asked(
    model_path: Path, with_bad_images: Path, activations: Path, tmp_path: Path
) -> None:
    out, notes = tmp_path / "out", Notes()
    found = extract_with(model_path, with_bad_images, out, options(skip_bad_stimuli=True), notes)
    assert found.skipped_stimuli == ["20.png", "41.png"]
    assert len(found.stimulus_ids) == 68
    assert any("2 images do not open and are left out: 20.png, 41.png" in n for n in notes.said)
    ids = tuple(pd.read_parquet(out / "1.parquet")["stimulus_id"])
    assert ids == tuple(f"{place:02d}.png" for place in range(70) if place not in (20, 41))
    np.testing.assert_array_equal(
        rows(out / "1.parquet", ids), rows(activations / "1.parquet", ids)
    )
    with pytest.raises(RecordingsError, match=r"2 stimuli did not open.*20.png, 41.png"):
        extract_with(model_path, with_bad_images, out, options())


def test_no_images(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingsError, match="no images here"):
        extract_with(model_path, tmp_path / "none", tmp_path / "out", options())


def test_the_command_prints_files(model_path: Path, images: Path, tmp_path: Path) -> None:
    run = nrp_onnx(
        "extract", model_path, "--images", images, "-o", tmp_path, "--layers", "1,3",
        "--reduce", "1=avgpool:4,3=sketch:32", "--preprocess", "tf", "--device", "cpu", "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "bytes an image" in run.stderr
    assert "free on disk" in run.stderr
    assert "images a second: about" in run.stderr
    found = json.loads(run.stdout)
    assert [layer["reduction"] for layer in found["layers"]] == ["avgpool:4", "sketch:32"]
    assert [layer["shape"] for layer in found["layers"]] == [[8, 4, 4], [32]]
    for layer in found["layers"]:
        assert (tmp_path / layer["file"]).is_file()
    both = nrp_onnx("extract", model_path, "-o", tmp_path)
    assert_user_error(both, "--images or --recordings", "neither")
