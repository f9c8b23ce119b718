import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.recordings.download import DownloadError, download
from nrp_onnx.recordings.registry_entry import PublicFile
from tests.recordings.file_server import FileServer, serve

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve() as server:
        server.files["/data.nc"] = CONTENT
        yield server


@pytest.fixture
def file(server: FileServer) -> PublicFile:
    digits = hashlib.sha1(CONTENT).hexdigest()
    return PublicFile("data.nc", f"{server.url}/data.nc", f"sha1:{digits.upper()}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole(file, tmp_path):
    download(file, tmp_path)
    assert (tmp_path / "data.nc").read_bytes() == CONTENT
    assert names(tmp_path) == ["data.nc"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_is_finished_by_the_next(ranges, server, file, tmp_path, capfd):
    server.ranges, server.stop_after = ranges, 200_000
    with pytest.raises(DownloadError, match="the download broke off") as caught:
        download(file, tmp_path)
    assert caught.value.expected == "300000 bytes"
    assert not (tmp_path / "data.nc").exists()
    size = (tmp_path / ".data.nc.part").stat().st_size
    assert caught.value.found == f"{size} bytes"
    assert 0 < size <= 200_000
    server.stop_after = None
    capfd.readouterr()
    download(file, tmp_path)
    assert "300.0/300.0 kB" in capfd.readouterr().err, "the bar counts what was there before"
    assert (tmp_path / "data.nc").read_bytes() == CONTENT
    assert names(tmp_path) == ["data.nc"]
    assert server.requests == [("/data.nc", None), ("/data.nc", f"bytes={size}-")]


@pytest.mark.parametrize(
    "begun", [b"of another version", CONTENT + b"more", CONTENT[:-1] + b"?"], ids=len
)
def test_the_beginning_of_another_file_is_thrown_away(begun, file, tmp_path):
    (tmp_path / ".data.nc.part").write_bytes(begun)
    download(file, tmp_path)
    assert (tmp_path / "data.nc").read_bytes() == CONTENT
    assert names(tmp_path) == ["data.nc"]


def test_what_was_whole_but_not_yet_renamed_is_not_downloaded_again(server, file, tmp_path):
    (tmp_path / ".data.nc.part").write_bytes(CONTENT)
    download(file, tmp_path)
    assert names(tmp_path) == ["data.nc"]
    assert server.requests == []


def test_a_wrong_hash_leaves_nothing(server, file, tmp_path):
    server.files["/data.nc"] = other = CONTENT[::-1]
    with pytest.raises(DownloadError, match="wrong hash") as caught:
        download(file, tmp_path)
    assert caught.value.expected == file.hash
    assert caught.value.found == f"sha1:{hashlib.sha1(other).hexdigest()} (300000 bytes)"
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_the_status_of_the_server_is_said(status, server, file, tmp_path):
    server.statuses["/data.nc"] = status
    with pytest.raises(DownloadError, match="does not give this file") as caught:
        download(file, tmp_path)
    assert str(caught.value.found).startswith(f"HTTP status {status} ")
    assert names(tmp_path) == []


def test_an_error_of_the_server_does_not_cost_what_is_there(server, file, tmp_path):
    (tmp_path / ".data.nc.part").write_bytes(CONTENT[:1000])
    server.statuses["/data.nc"] = 503
    with pytest.raises(DownloadError, match="does not give this file"):
        download(file, tmp_path)
    assert (tmp_path / ".data.nc.part").read_bytes() == CONTENT[:1000]


def test_no_way_to_the_server(tmp_path):
    with serve() as gone:
        url = gone.url
    file = PublicFile("data.nc", f"{url}/data.nc", "sha1:" + "0" * 40)
    with pytest.raises(DownloadError, match="no way to the server") as caught:
        download(file, tmp_path)
    assert "Connection refused" in str(caught.value.found)
    assert names(tmp_path) == []
