"""The commands in the documentation run; its tables are those of the program."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.io
import typer
from PIL import Image

from nrp_onnx.cli.app import app
from nrp_onnx.recordings import import_arrays
from tests.command_line import nrp_onnx, nrp_onnx_process
from tests.recordings.algonauts_folder import write_subject
from tests.recordings.brainio_file import write_assembly
from tests.recordings.cowley_folder import write_cowley
from tests.recordings.laion_tree import write_laion
from tests.recordings.nsd_tree import write_nsd
from tests.recordings.nwb_file import write_nwb
from tests.recordings.sensorium_scan import NAME, write_scan
from tests.recordings.triple_n_file import FILE, processed_session, write_shared_images
from tests.recordings.tvsd_folder import write_tvsd

ROOT = Path(__file__).parents[1]
#: The reference of the commands shows those of their help, whose files are made up; tutorials have
#: tests of their own; the command of the results takes hours and recordings that are not here.
PAGES = [
    "README.md",
    *sorted(
        f"docs/{page.name}"
        for page in (ROOT / "docs").glob("*.md")
        if page.stem not in ("cli", "results") and not page.stem.startswith("tutorial-")
    ),
]
#: Pages whose commands take the recordings and the run of the README.
AFTER_README = ("docs/studies.md", "docs/scaling.md", "docs/reading-a-score.md")
#: Commands that have a test of their own: of the demo, and of flax in its own environment.
NOT_RUN = ("nrp-onnx demo", "nrp-onnx convert jax:")


def commands(page: str) -> list[str]:
    """The nrp-onnx commands in indented and fenced blocks, continued lines joined."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^(?: {4})?(nrp-onnx .*?)(?: +#.*)?$", text, re.MULTILINE)
    return [command for command in found if not command.startswith(NOT_RUN)]


@pytest.fixture(scope="module")
def desk(raw_data: Path, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documentation takes for given."""
    import shutil

    folder = tmp_path_factory.mktemp("desk")
    shutil.make_archive(str(folder / "images"), "zip", raw_data / "images")
    for name in ("rates.npy", "stimuli.csv"):
        shutil.copy(raw_data / name, folder)
    (folder / "demo").mkdir()
    for name in ("model.onnx", "other.onnx", "demo/trained.onnx", "demo/untrained.onnx"):
        shutil.copy(model_path, folder / name)
    for name in ("monday", "tuesday"):
        import_arrays(
            raw_data / "images", raw_data / "rates.npy", folder / name,
            axes=["site", "stimulus", "repetition"], region="V4", name=name,
        )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    (folder / "photos").mkdir()
    for name in ("image.png", "photos/image.png"):
        Image.fromarray(pixels).save(folder / name)
    (folder / "my_models.py").write_text(
        "from torch import nn\n\n\ndef make_network():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n\n\n"
        "def make_classifier():\n"
        "    return nn.Sequential(make_network(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),"
        " nn.Linear(4, 6))\n"
    )
    (folder / "labels.txt").write_text("cat\ndog\ncow\npig\nfox\nowl\n")
    _recordings_of_other_kinds(folder, np.load(folder / "rates.npy"))
    return folder


def _recordings_of_other_kinds(folder: Path, rates: np.ndarray) -> None:
    """The same rates as tables of lab software have them, and a subject of Algonauts."""
    (folder / "sites.csv").write_text(
        "site_id,region,animal\n" + "".join(f"c{i},{('V4', 'IT')[i % 2]},m1\n" for i in range(6))
    )
    scipy.io.savemat(folder / "session.mat", {"rates": rates, "blank": np.ones((6, 1))})
    np.savetxt(folder / "rates.csv", np.nanmean(rates, axis=2), delimiter=",")
    ids = [f"s{i}" for i in range(rates.shape[1])]
    trials = rates.reshape(6, -1)[:, :, None] * np.ones(2)
    write_assembly(
        folder / "assembly.nc",
        lambda rows: trials[rows],
        {
            "neuroid": {"neuroid_id": [f"c{i}" for i in range(6)], "region": ["V4"] * 3 + ["IT"] * 3},
            "presentation": {"stimulus_id": np.repeat(ids, 4), "repetition": np.tile(range(4), 40)},
            "time_bin": {"time_bin_start": np.array([70, 120]),
                         "time_bin_end": np.array([120, 170])},
        },
    )  # fmt: skip
    write_subject(folder / "subj01")
    _recordings_of_known_formats(folder, ids)


def _recordings_of_known_formats(folder: Path, ids: list[str]) -> None:
    """Small files in the layouts of public recordings; of BrainIO, all stimuli in two assemblies."""
    write_tvsd(folder)
    write_cowley(folder / "data_V4_responses")
    write_shared_images(folder / "shared")
    scipy.io.savemat(folder / FILE, processed_session())
    write_scan(folder / NAME)
    write_nwb(folder / "lab.nwb")
    write_nsd(folder / "NSD")
    write_laion(folder)
    for name, half in (("train", ids[:30]), ("test", ids[30:])):
        numbers = np.random.default_rng(0).normal(size=(6, len(half), 1))
        write_assembly(
            folder / f"{name}.nc",
            numbers.__getitem__,
            {
                "neuroid": {"neuroid_id": [f"c{i}" for i in range(6)], "region": ["V4"] * 6},
                "presentation": {"stimulus_id": half, "repetition": [0] * len(half)},
                "time_bin": {"time_bin_start": np.array([70]), "time_bin_end": np.array([170])},
            },
        )


def _models_of_tensorflow(folder: Path) -> None:
    """A model inside another, and the same graph as TensorFlow's other files have it."""
    from nrp_converters.tensorflow.packages import keras, tf
    from tests.converters.frozen_graphs import Small, write_tfjs

    image, patch = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    base = keras.Model(patch, keras.layers.Conv2D(4, 3, name="conv")(patch), name="base")
    rescaled = keras.layers.Rescaling(1 / 255)(image)
    keras.Model(image, keras.layers.ReLU()(base(rescaled))).save(folder / "my_model.keras")
    small = Small()
    (folder / "frozen.pb").write_bytes(small.definition.SerializeToString())
    write_tfjs(small, folder / "web_model")
    model = tf.Module()
    model.features = tf.function(
        lambda x: tf.nn.relu(x - 0.5), input_signature=[tf.TensorSpec([None, 8, 8, 3])]
    )
    signatures = {"features": model.features}
    tf.saved_model.save(model, str(folder / "my_saved_model"), signatures=signatures)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run(page: str, desk: Path) -> None:
    if page in AFTER_README and not (desk / "runs" / "model").exists():
        test_commands_of_a_page_run("README.md", desk)
    if page == "docs/converting.md":
        _models_of_tensorflow(desk)
    for command in commands(page):
        # A cluster ends with the process that started it.
        run_as = nrp_onnx_process if "--engine ray" in command else nrp_onnx
        run = run_as(*shlex.split(command)[1:], cwd=desk)
        assert run.returncode == 0, f"{command}\n{run.stderr}"


def test_there_are_commands_to_run() -> None:
    assert len(commands("README.md")) >= 3


def test_every_command_has_help_an_example_and_a_place_in_the_reference() -> None:
    found = dict(_all_commands(typer.main.get_command(app), ""))
    assert {"score", "demo", "recordings import", "study table1", "study arena"} <= set(found)
    reference = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in found.items():
        assert command.help, name
        assert f"Example: nrp-onnx {name} " in " ".join(command.help.split()), name
        assert f"\n## nrp-onnx {name}\n" in reference, f"{name}: run make docs"
        # Of a typer.Context there is no parameter.
        assert all(parameter.help for parameter in command.params), name


def test_the_reference_is_what_the_commands_say() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import make_cli_reference as of; print(of.cli_reference(), end='')"],
        cwd=ROOT / "docs", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), "run make docs"


def _all_commands(group: Any, path: str) -> list[tuple[str, Any]]:
    found = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += _all_commands(command, f"{path}{name} ")
        else:
            found.append((path + name, command))
    return found


@pytest.mark.slow
def test_the_page_of_result_json_names_every_key(desk: Path) -> None:
    """Runs after the README's commands, and by itself."""
    out = desk / "keys"
    if not (desk / "my_recordings").exists():
        test_commands_of_a_page_run("README.md", desk)
    run = nrp_onnx(
        "score", desk / "model.onnx", "--recordings", desk / "my_recordings", "-o", out,
        "--search", "quick", "--json",
    )  # fmt: skip
    result = json.loads(run.stdout)
    page = (ROOT / "docs" / "result.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([a-z_0-9+]+)`", page))
    page = page.split("# trials.parquet")[0]
    rows = set(re.findall(r"^\| `([a-z_0-9]+)", page, re.MULTILINE))
    assert rows == set(json.loads((out / "result.json").read_text()))
    for part in ("model", "recordings", "protocol", "search"):
        assert set(result[part]) <= documented, part
    region = result["regions"]["V4"]
    assert set(re.findall(r"regions\.<R>\.([a-z_]+)", page)) == set(region)
    assert set(region["predictors"]["nrp"]) | set(region["predictors"]) <= documented


def test_the_page_shows_the_search_file_with_its_defaults(tmp_path: Path) -> None:
    from nrp_onnx.predictor.search_file import read_search
    from nrp_onnx.predictor.search_space import SearchSpace

    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(shown)
    assert read_search(str(tmp_path / "mine.yaml")) == SearchSpace()
    keys = set(re.findall(r"^(\w+):", shown, re.MULTILINE))
    content = SearchSpace().to_json()
    assert keys == (set(content) | set(content["plan"])) - {"plan"}


def test_the_page_of_trials_names_every_column(tmp_path: Path) -> None:
    from nrp_onnx.predictor.head import HeadConfig, Trial
    from nrp_onnx.predictor.trials import TrialRecord

    trial = Trial(HeadConfig((0,), 1, 1, 0.1), 0, 1.0, 1, (1.0,), (1.0,))
    TrialRecord(tmp_path / "trials.parquet", ["a"]).add(0, "", [trial])
    page = (ROOT / "docs" / "result.md").read_text(encoding="utf-8")
    page = page.split("# trials.parquet")[1].split("# sites.csv")[0]
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert documented == pq.read_schema(tmp_path / "trials.parquet").names


#: Where the README's links lead: it also stands on a package index, away from the repository.
_HOME = re.compile(
    r"https://(?:github\.com/nrp-onnx/nrp-onnx/blob|raw\.githubusercontent\.com/nrp-onnx/nrp-onnx)/main/"
)
#: [text](link), [name]: link and src="link".
_LINK = re.compile(r"(?:\]\(|^\[.+\]: |src=\")([^)#\"\n]+)", re.MULTILINE)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in _LINK.findall(page.read_text(encoding="utf-8")):
            home = _HOME.match(link)
            if home or "://" not in link:
                target = ROOT / link[home.end() :] if home else page.parent / link
                assert target.is_file(), f"{page.name}: {link}"


def test_links_of_the_readme_lead_somewhere_on_a_package_index() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [link for link in _LINK.findall(text) if "://" not in link] == []
    used, defined = re.findall(r"\]\[([^\]]+)\]", text), re.findall(r"^\[(.+)\]: ", text, re.M)
    assert set(used) == set(defined)
