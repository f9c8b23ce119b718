"""Public recordings from a server on this machine, as a user fetches and scores them."""

import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.errors import OutputError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import (
    Recordings,
    describe_recordings,
    load_recordings,
    open_recordings,
    public,
)
from nrp_onnx.scoring.splits import outer_folds
from tests.command_line import Finished, assert_user_error, nrp_onnx
from tests.recordings.brainio_file import write_brainio
from tests.recordings.file_server import FileServer, serve
from tests.recordings.public_set import ROLES, make_recordings, registry_of

#: The names in the cache: those of the shipped registry.
FILE_NAMES = {
    "assembly": "assy_dicarlo_MajajHong2015_public.nc",
    "stimuli": "stimulus_hvm-public.csv",
    "images": "stimulus_hvm-public.zip",
}


@dataclass(frozen=True)
class PublicSet:
    """What was recorded, and its three files by role."""

    recordings: Recordings
    paths: dict[str, Path]


@pytest.fixture(scope="module")
def public_set(tmp_path_factory: pytest.TempPathFactory) -> PublicSet:
    folder = tmp_path_factory.mktemp("public")
    recordings = make_recordings(folder / "images", np.arange(40) % 3 + 2, {"V4": 3, "IT": 4}, 48)
    return PublicSet(recordings, dict(zip(ROLES, write_brainio(folder, recordings), strict=True)))


@pytest.fixture
def server(public_set: PublicSet) -> Iterator[FileServer]:
    with serve() as server:
        server.files = {f"/{path.name}": path.read_bytes() for path in public_set.paths.values()}
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NRP_ONNX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def registry(
    cache: Path, public_set: PublicSet, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The URLs and hashes of the server in the place of the public ones."""
    file = cache.parent / "registry.toml"
    file.write_text(registry_of(server.url, public_set.paths))
    monkeypatch.setenv("NRP_ONNX_REGISTRY", str(file))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return file


@pytest.fixture
def downloads(cache: Path) -> Path:
    return cache / "downloads" / "majajhong2015"


def fetch() -> Finished:
    return nrp_onnx("recordings", "fetch", "majajhong2015")


def nothing_is_imported(cache: Path) -> bool:
    return not list((cache / "recordings").glob("*"))


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_score_fetches_checks_imports_and_scores(cache, server, public_set, model_path, tmp_path):
    run = nrp_onnx(
        "score", model_path, "--recordings", "majajhong2015", "--search", "quick", "--folds", 2,
        "--json", "-o", tmp_path / "run",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert {name: found["n_sites"] for name, found in result["regions"].items()} == {
        region: public_set.recordings.regions.count(region) for region in ("V4", "IT")
    }
    assert result["recordings"]["name"] == "majajhong2015"
    assert result["recordings"]["n_stimuli"] == public_set.recordings.n_stimuli
    assert not result["recordings"]["simulated"]
    assert result["recordings"]["visual_degrees"] == 8, "as the registry says"
    assert result["protocol"]["stratified_on"] == "object_name"
    assert result["protocol"]["normalise"] == "none", "the rates are normalised already"
    for name in FILE_NAMES.values():
        assert name in run.stderr, "a bar for each download"
    assert len(server.requests) == 3
    (folder,) = (cache / "recordings").iterdir()
    np.testing.assert_allclose(
        averages(load_recordings(folder), public_set.recordings),
        public_set.recordings.averages,
        atol=1e-6,
    )

    open_recordings("majajhong2015", Notes())
    assert len(server.requests) == 3, "it opens from the cache"


def test_what_the_registry_says_of_a_set_is_kept(registry):
    """freemanziemba2013 is to be stratified on texture_type."""
    text = registry.read_text()
    registry.write_text(
        text.replace(
            "[majajhong2015.files.assembly]",
            '[majajhong2015]\nstratify_on = "texture_type"\nvisual_degrees = 4\n'
            "[majajhong2015.files.assembly]",
        )
    )
    recordings = open_recordings("majajhong2015", Notes())
    assert (recordings.stratify_on, recordings.visual_degrees) == ("texture_type", 4)
    assert describe_recordings(recordings)["stratify_on"] == "texture_type"
    labels = np.array(recordings.stimulus_labels["texture_type"])
    for fold in outer_folds(recordings, 5, seed=0):
        assert sorted(labels[fold.test]) == ["x"] * 4 + ["y"] * 4
    registry.write_text(text)
    assert open_recordings("majajhong2015", Notes()).stratify_on == "object_name"


def averages(imported: Recordings, like: Recordings) -> np.ndarray:
    """Averages over repetitions with stimuli and sites in the order of others."""
    rows = [imported.stimulus_ids.index(name) for name in like.stimulus_ids]
    columns = [imported.site_ids.index(name) for name in like.site_ids]
    return imported.averages[rows][:, columns]


def test_fetch_prints_the_folder_and_list_knows_it(cache, downloads):
    run = fetch()
    assert run.returncode == 0, run.stderr
    folder = Path(run.stdout.strip())
    assert load_recordings(folder).name == "majajhong2015"
    shutil.rmtree(downloads)  # what is imported needs them no more
    facts = json.loads(nrp_onnx("recordings", "list", "--json").stdout)[1]
    assert (facts["name"], facts["cached"], facts["folder"]) == ("majajhong2015", True, str(folder))
    assert fetch().stdout == run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [True, False])
def test_killed_in_mid_download(ranges, cache, server, downloads):
    """The images, the biggest file, hold on in their middle; the process is killed there."""
    biggest = max(server.files.values(), key=len)
    server.hold_after = len(biggest) // 2
    server.ranges = ranges
    process = subprocess.Popen(
        [sys.executable, "-m", "nrp_onnx", "recordings", "fetch", "majajhong2015"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    part = downloads / f".{FILE_NAMES['images']}.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 0)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert 0 < part.stat().st_size < len(biggest)
    assert not (downloads / FILE_NAMES["images"]).exists()
    assert nothing_is_imported(cache)
    assert not json.loads(nrp_onnx("recordings", "list", "--json").stdout)[1]["cached"]

    server.hold_after = None
    server.release.set()
    size = part.stat().st_size
    server.requests.clear()
    run = fetch()
    assert run.returncode == 0, run.stderr
    assert server.requests[0][1] == f"bytes={size}-"
    assert files_in(downloads) == sorted(FILE_NAMES.values()), "nothing piles up"
    assert len(list((cache / "recordings").iterdir())) == 1


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_while_importing(cache, monkeypatch):
    """What a killed import leaves behind is no recordings, and the next run removes it."""
    left_over = cache / "recordings"
    code = (
        "import os, signal\n"
        "from nrp_onnx.notes import Notes\n"
        "from nrp_onnx.recordings import folder, open_recordings\n"
        "def killed(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder.write_facts = killed\n"
        "open_recordings('majajhong2015', Notes())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    (part,) = left_over.iterdir()
    assert part.name.startswith(".")
    assert fetch().returncode == 0
    (folder,) = left_over.iterdir()
    assert not folder.name.startswith(".")


def test_a_wrong_hash(cache, server, downloads):
    server.files[f"/{FILE_NAMES['stimuli']}"] = b"stimulus_id,filename\n"
    run = fetch()
    assert_user_error(
        run,
        "wrong hash, so it was deleted; expected sha256:",
        "found sha256:",
        FILE_NAMES["images"],
    )
    assert files_in(downloads) == [FILE_NAMES["assembly"]]
    assert nothing_is_imported(cache)


def test_a_truncated_download(cache, server, downloads, public_set):
    server.stop_after = 100_000  # in the images, which are bigger
    size = public_set.paths["images"].stat().st_size
    run = fetch()
    assert_user_error(run, f"the download broke off; expected {size} bytes; found ", "Run it again")
    assert nothing_is_imported(cache)
    server.stop_after = None
    assert fetch().returncode == 0


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_without_the_file(status, cache, server, public_set):
    server.statuses[f"/{FILE_NAMES['images']}"] = status
    assert_user_error(
        fetch(), f"{server.url}/{FILE_NAMES['images']}: ", f"found HTTP status {status}"
    )
    assert nothing_is_imported(cache)


def test_files_that_disagree_are_not_imported(cache, server, public_set, registry, tmp_path):
    """All hashes are right, but the zip lacks an image."""
    shorter = tmp_path / public_set.paths["images"].name
    with zipfile.ZipFile(public_set.paths["images"]) as whole, zipfile.ZipFile(shorter, "w") as zip:
        for name in whole.namelist()[1:]:
            zip.writestr(name, whole.read(name))
    server.files[f"/{shorter.name}"] = shorter.read_bytes()
    registry.write_text(registry_of(server.url, public_set.paths | {"images": shorter}))
    assert_user_error(fetch(), whole.namelist()[0], FILE_NAMES["images"])
    assert nothing_is_imported(cache)


@pytest.fixture
def offline(registry: Path, server: FileServer) -> str:
    """Nothing listens where the registry points to."""
    with serve() as gone:
        url = gone.url
    registry.write_text(registry.read_text().replace(server.url, url))
    return url


def test_offline_says_which_files_to_put_where(offline, cache, downloads, registry):
    run = fetch()
    assert_user_error(
        run,
        "majajhong2015 cannot be downloaded: there is no way to the server; found",
        "Connection refused",
        f"Or put into {downloads}: ",
    )
    for role, name in FILE_NAMES.items():
        table = registry.read_text().split(f"files.{role}]")[1]
        digits = table.split('hash = "')[1].split('"')[0]
        assert f"{name} (size unknown, {digits}, from {offline}/" in run.stderr
    assert nothing_is_imported(cache)
    assert files_in(downloads) == []


def test_files_put_there_by_hand_are_checked_and_used(offline, downloads, public_set):
    downloads.mkdir(parents=True)
    for role, path in public_set.paths.items():
        shutil.copy(path, downloads / FILE_NAMES[role])
    (downloads / FILE_NAMES["stimuli"]).write_text("stimulus_id,filename\n")
    run = fetch()
    assert_user_error(run, "no way to the server", f"{downloads}: {FILE_NAMES['stimuli']} (")
    assert f"note: {downloads / FILE_NAMES['stimuli']} has not the hash sha256:" in run.stderr
    assert FILE_NAMES["assembly"] not in run.stderr, "only what is missing is named"
    shutil.copy(public_set.paths["stimuli"], downloads / FILE_NAMES["stimuli"])
    assert fetch().returncode == 0


def test_a_wrong_file_put_there_by_hand_is_downloaded_anew(server, downloads):
    downloads.mkdir(parents=True)
    (downloads / FILE_NAMES["images"]).write_bytes(b"no zip")
    run = fetch()
    assert run.returncode == 0, run.stderr
    assert "has not the hash" in run.stderr
    assert len(server.requests) == 3


def test_a_cache_that_cannot_be_written(cache):
    cache.write_text("a file")
    assert_user_error(
        fetch(), "the recordings majajhong2015 cannot be kept", "NRP_ONNX_CACHE to another folder"
    )


def test_a_damaged_import_says_what_to_delete(cache):
    assert fetch().returncode == 0
    (folder,) = (cache / "recordings").iterdir()
    (folder / "sites.csv").unlink()
    with pytest.raises(RecordingsError, match=r"cached recordings are damaged.*sites\.csv.*Delete"):
        open_recordings("majajhong2015", Notes())


def test_a_disk_that_is_full_is_one_error(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "/cache/x")

    monkeypatch.setattr(public, "download", full)
    with pytest.raises(OutputError, match=r"cannot be kept.*No space left on device\. Make room"):
        open_recordings("majajhong2015", Notes())


@pytest.mark.slow
def test_two_processes_at_once(cache, server, tmp_path):
    server.hold_after = 1000  # so that both are there before the first is done
    command = [sys.executable, "-m", "nrp_onnx", "recordings", "fetch", "majajhong2015"]
    both, said = [], [tmp_path / "said_0", tmp_path / "said_1"]
    for path in said:
        with path.open("w") as stderr:
            both.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True))
    note = "note: another process fetches majajhong2015"
    wait_for(lambda: any(note in path.read_text() for path in said))
    server.hold_after = None
    server.release.set()
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], [path.read_text() for path in said]
    assert printed[0] == printed[1]
    assert len(server.requests) == 3, "one downloads for both"
    assert len(list((cache / "recordings").iterdir())) == 1
