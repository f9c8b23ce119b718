"""Processed sessions of Triple-N: averages of units, in MATLAB 5 files."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from nrp_onnx.recordings import import_path
from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.scenes import coarse_images, save_images
from tests.recordings.triple_n_file import FILE, processed_session, write_shared_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triple")
    write_shared_images(folder / "shared")
    return folder / "shared"


@pytest.fixture
def content() -> dict[str, np.ndarray]:
    return processed_session()


@pytest.fixture
def session(content, tmp_path: Path) -> Path:
    scipy.io.savemat(tmp_path / FILE, content)
    return tmp_path / FILE


def test_units_and_shared_images_are_read(content, session, images, tmp_path, caplog):
    read = import_path(session, tmp_path / "out", images=images, region="IT")
    np.testing.assert_allclose(read.averages, content["response_best"][:, :1000].T, rtol=1e-6)
    assert read.stimulus_ids[0] == "shared0001_nsd00070"
    assert read.regions == ("IT",) * 5
    assert read.site_ids[1] == "ses01_0001"
    assert read.site_labels["animal"] == ("M1",) * 5
    assert read.site_labels["session"] == ("ses01",) * 5
    assert read.site_labels["UnitType"][:2] == ("single unit", "multi-unit")
    assert read.site_labels["pos"] == ("0", "100", "200", "300", "400")
    assert read.visual_degrees == 11
    assert "72 images of the localizer are left out" in caplog.text
    assert "shared0001_nsd00070.png first" in caplog.text
    assert "shuffled" not in caplog.text


def test_units_are_selected_by_the_reliability_of_the_average(session, images, tmp_path, caplog):
    read = import_path(
        session, tmp_path / "out", images=images, region="IT", min_reliability=0.4,
        key="response_basic",
    )  # fmt: skip
    assert read.site_ids == ("ses01_0000", "ses01_0002"), "reliability_best keeps another one"
    assert "3 of 5 sites are left out: their reliability basic is below 0.4" in caplog.text
    assert read.provenance["reliability"] == "reliability basic"


def test_a_table_gives_the_order_of_the_images_and_the_regions(content, session, images, tmp_path):
    names = sorted(path.name for path in images.iterdir())[::-1]
    content["response_best"][:, :1000] = content["response_best"][:, :1000][:, ::-1]
    scipy.io.savemat(session, content)
    rows = ["stimulus_id,filename", *(f"{name[:10]},{name}" for name in names)]
    (tmp_path / "stimuli.csv").write_text("\n".join(rows) + "\n")
    regions = ["V1", "V2", "V4", "V4", "IT"]
    rows = ["site_id,region", *(f"u{place},{region}" for place, region in enumerate(regions))]
    (tmp_path / "sites.csv").write_text("\n".join(rows) + "\n")
    read = import_path(
        session, tmp_path / "out", images=images, stimuli=tmp_path / "stimuli.csv",
        sites=tmp_path / "sites.csv",
    )  # fmt: skip
    assert read.stimulus_ids[0] == "shared1000"
    assert read.regions == tuple(regions)
    np.testing.assert_allclose(read.averages, content["response_best"][:, :1000].T, rtol=1e-6)
    assert not read.provenance["image_order"]["all"]["looks_wrong"]


@pytest.mark.parametrize(
    ("name", "change", "options", "says"),
    [
        ("response_best", lambda a: a.T, [], "response_best is transposed; expected 5 units, as "
         "reliability_best has, x 1072 images; found the shape (1072, 5)"),
        ("response_best", lambda a: a[:, :1000], [], "response_best does not fit"),
        ("reliability_best", lambda a: a[:, :4], [], "response_best does not fit"),
        ("response_best", None, [], "the file has no numbers response_best"),
        ("snr", lambda a: a, ["--key", "mean_psth"], "--key: there are no such responses"),
        ("snr", lambda a: a, ["--sites", "s.csv"], "the regions of the units are not clear"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(
    content, images, tmp_path, name, change, options, says
):
    if change is None:
        del content[name]
    else:
        content[name] = change(content[name])
    scipy.io.savemat(tmp_path / FILE, content)
    run = nrp_onnx(
        "recordings", "import", tmp_path / FILE, "--images", images, "--region", "IT", *options,
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert_one_line_error(run, says)
    assert not (tmp_path / "out").exists()


def test_half_a_file_and_too_few_images(session, images, tmp_path):
    few = tmp_path / "few"
    save_images(few, ["a.png", "b.png"], coarse_images(2))
    command = ["recordings", "import", session, "--region", "IT", "-o", tmp_path / "out"]
    assert_one_line_error(
        nrp_onnx(*command, "--images", few),
        "few: the images do not fit the responses; expected 1000 shared images of NSD, or 1072",
        "found 2",
    )
    session.write_bytes(session.read_bytes()[:2000])
    assert_one_line_error(
        nrp_onnx(*command, "--images", images), f"{FILE}: this session cannot be read"
    )
