import json
import logging
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nrp_onnx.cli.recordings import recordings_app
from nrp_onnx.errors import OptionError
from tests.recordings.conftest import write_images


def run(*words: object) -> Any:
    return CliRunner().invoke(recordings_app, list(map(str, words)), catch_exceptions=False)


def test_import_describe_validate(tmp_path, caplog):
    write_images(tmp_path / "images", ["b.png", "a.png"])
    (tmp_path / "stimuli.csv").write_text("stimulus_id,filename\nbee,b.png\nant,a.png\n")
    array = np.arange(12.0).reshape(3, 2, 2)
    np.save(tmp_path / "rates.npy", array)
    out = tmp_path / "out"
    with caplog.at_level(logging.WARNING, "nrp_onnx"):
        done = run(
            "import", tmp_path / "images", tmp_path / "rates.npy",
            "--axes", "repetition,stimulus, site", "--region", "IT", "-o", out,
            "--stimuli", tmp_path / "stimuli.csv", "--units", "spikes/s", "--normalised",
            "--time-window-ms", "70", "170", "--licence", "CC0-1.0", "--name", "tiny",
            "--visual-degrees", "6.5",
        )  # fmt: skip
    assert done.exit_code == 0
    assert done.stdout == f"{out}: 2 stimuli, 2 sites\n"
    assert caplog.text == ""

    shown = run("describe", out, "--json")
    facts = json.loads(shown.stdout)
    assert facts["name"] == "tiny"
    assert facts["time_window_ms"] == [70, 170]
    assert facts["regions"] == {"IT": 2}
    assert facts["repetitions"] == {"min": 3, "median": 3, "max": 3}
    assert facts["visual_degrees"] == 6.5
    assert facts["reliability"] == {"IT": None}, "of two stimuli there is none"
    lines = run("describe", out).stdout.splitlines()
    assert "regions: IT 2" in lines
    assert "repetitions: min 3, median 3, max 3" in lines
    assert "time_window_ms: 70 to 170" in lines
    assert "citation: unknown" in lines
    assert "reliability: IT unknown" in lines

    assert run("validate", out).stdout == "no problems\nimages: 2 RGB; 2 of 8 bits a channel\n"
    (out / "stimuli" / "a.png").unlink()
    found = run("validate", out)
    assert found.exit_code == 2
    assert "1 of 2 images are missing" in found.stdout
    as_json = run("validate", out, "--json")
    assert as_json.exit_code == 2
    assert json.loads(as_json.stdout)["problems"] == found.stdout.splitlines()[:-1]


def test_simulated_recordings_are_described_as_such(folder):
    assert run("describe", folder).stdout.splitlines()[0] == "SIMULATED"


@pytest.mark.parametrize("degrees", ["0", "-8", "181", "nan"])
def test_visual_degrees_that_no_image_fills(tmp_path, degrees):
    np.save(tmp_path / "rates.npy", np.ones((1, 1)))
    with pytest.raises(OptionError, match=r"--visual-degrees: .*expected degrees, over 0"):
        run(
            "import", tmp_path, tmp_path / "rates.npy", "--axes", "site,stimulus", "--region", "IT",
            "-o", tmp_path / "out", "--visual-degrees", degrees,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_errors_are_raised_for_the_top_level(tmp_path):
    np.save(tmp_path / "rates.npy", np.ones((1, 1)))
    with pytest.raises(OptionError, match="found neuron,stimulus"):
        run("import", tmp_path, tmp_path / "rates.npy", "--axes", "neuron,stimulus", "-o", "out")


@pytest.mark.parametrize("command", ["import", "describe", "validate"])
def test_each_command_has_an_example(command):
    assert f"Example: nrp-onnx recordings {command}" in run(command, "--help").stdout
