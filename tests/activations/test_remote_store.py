"""Activations in an object store: an S3 server on the loopback holds them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.activations.remote import RemoteFile, RemoteFolder, folder_of
from nrp_onnx.api import extract_with, score_with
from nrp_onnx.errors import OptionError, OutputError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.registry import CACHE_VARIABLE
from nrp_onnx.scoring.options import ExtractOptions, ScoreOptions
from tests.activations.conftest import options
from tests.command_line import assert_user_error, nrp_onnx


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of an S3 server with the empty bucket ``lab``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=file, stderr=file,
        )  # fmt: skip
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()
            try:
                requests.put(f"http://127.0.0.1:{port}/lab", timeout=5).raise_for_status()
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def uri(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of a test's own in the bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return f"s3://lab/{tmp_path.name}?scheme=http&endpoint_override={server}&region=us-east-1"


def names_of(uri: str, name: str) -> RemoteFile:
    return RemoteFolder(uri) / name


def parts() -> list[str]:
    """What is left in the local folder of parts, but for locks."""
    cache = Path(os.environ[CACHE_VARIABLE])
    return [p.name for p in cache.rglob("*") if p.is_file() and p.name != ".lock"]


def test_files_there_are_those_of_a_local_folder(
    model_path: Path, images: Path, activations: Path, uri: str, tmp_path: Path
) -> None:
    found = extract_with(model_path, images, uri, options())
    assert found.folder == f"s3://lab/{tmp_path.name}"
    for name in ("1.parquet", "3.parquet"):
        with names_of(uri, name).open() as file:
            assert file.read() == (activations / name).read_bytes(), name
    assert parts() == []


def test_finished_layers_are_not_computed_again(model_path: Path, images: Path, uri: str) -> None:
    extract_with(model_path, images, uri, options(layers="1"))
    notes = Notes()
    extract_with(model_path, images, uri, options(layers="1"), notes)
    assert "the activations are there already: nothing is extracted" in notes.said
    with pytest.raises(OutputError, match=r"^s3://lab/[^?]*/1.parquet: .*--overwrite"):
        extract_with(model_path, images, uri, options(layers="1", reduce="mean"))
    extract_with(model_path, images, uri, options(layers="1", reduce="mean", overwrite=True))


def test_what_was_computed_and_not_copied_is_only_copied(
    model_path: Path, images: Path, activations: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: RemoteFile, local: Path) -> None:
        raise OSError("the network is gone")

    with monkeypatch.context() as broken:
        broken.setattr(RemoteFile, "upload", fail)
        with pytest.raises(OutputError, match="the network is gone"):
            extract_with(model_path, images, uri, options())
    assert sorted(parts()) == ["1.parquet", "3.parquet"]
    with monkeypatch.context() as still:
        still.setattr("nrp_onnx.activations.extract.Computation", fail)
        extract_with(model_path, images, uri, options())
    with names_of(uri, "3.parquet").open() as file:
        assert file.read() == (activations / "3.parquet").read_bytes()


def test_principal_components_stay_with_their_activations(
    model_path: Path, images: Path, uri: str, tmp_path: Path
) -> None:
    chosen = options(layers="1", reduce="pca:3")
    extract_with(model_path, images, uri, chosen)
    extract_with(model_path, images, tmp_path / "local", chosen)
    for name in ("1.parquet", "components/1.parquet"):
        with names_of(uri, name).open() as file:
            assert file.read() == (tmp_path / "local" / name).read_bytes(), name


def test_images_and_features_are_read_from_there(
    model_path: Path, images: Path, activations: Path, uri: str
) -> None:
    extract_with(model_path, images, uri, options(layers="1"))
    ids = tuple(path.name for path in sorted(images.iterdir()))[::-1]
    there = StoredLayer(names_of(uri, "1.parquet"), ids)
    here = StoredLayer(activations / "1.parquet", ids)
    some = np.array([3, 60, 17])
    np.testing.assert_array_equal(there.read(some), here.read(some))
    for (where, block), (at, other) in zip(
        there.feature_blocks(300), here.feature_blocks(300), strict=True
    ):
        assert where == at
        np.testing.assert_array_equal(block, other)


@pytest.mark.slow
def test_a_score_takes_its_activations_from_there(
    model_path: Path, recordings_folder: Path, uri: str, tmp_path: Path
) -> None:
    common = {"search": "quick", "report": False, "device": "cpu"}
    local = score_with(model_path, str(recordings_folder), tmp_path / "a", ScoreOptions(**common))  # type: ignore[arg-type]
    given = ScoreOptions(**common, activations=uri)  # type: ignore[arg-type]
    there = score_with(model_path, str(recordings_folder), tmp_path / "b", given)
    assert there.regions == local.regions
    assert not (tmp_path / "b" / "activations").exists()


def test_the_command_line_hides_keys(
    model_path: Path, images: Path, uri: str, tmp_path: Path
) -> None:
    secret = uri.replace("s3://", "s3://me:topsecret@")
    run = nrp_onnx(
        "extract", model_path, "--images", images, "--layers", "1", "--device", "cpu", "-o", secret
    )
    assert run.returncode == 0, run.stderr
    assert f"s3://lab/{tmp_path.name}/1.parquet" in run.stdout
    assert "topsecret" not in run.stdout + run.stderr


def test_a_bucket_that_is_not_there_is_one_line(model_path: Path, images: Path, uri: str) -> None:
    run = nrp_onnx(
        *("extract", model_path, "--images", images, "--layers", "1", "--device", "cpu"),
        *("-o", uri.replace("s3://lab/", "s3://nobody/")),
    )
    assert_user_error(run, "s3://nobody/", "the activations cannot be written")


def test_addresses() -> None:
    assert folder_of("runs/x") == Path("runs/x")
    assert folder_of("file:///tmp/x") == Path("/tmp/x")
    with pytest.raises(OptionError, match=r"ftpx://a/b: no file system"):
        folder_of("ftpx://a/b")


def test_a_file_system_of_fsspec(
    model_path: Path, images: Path, activations: Path, uri: str
) -> None:
    found = extract_with(
        model_path, images, "memory://lab/x", ExtractOptions("1", "none", "tf", "cpu")
    )
    assert found.folder == "memory://lab/x"
    with (RemoteFolder("memory://lab/x") / "1.parquet").open() as file:
        assert file.read() == (activations / "1.parquet").read_bytes()
