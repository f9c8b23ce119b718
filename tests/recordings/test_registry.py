import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nrp_onnx.cli.recordings import recordings_app
from nrp_onnx.errors import RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import open_recordings, public
from nrp_onnx.recordings.registry import FolderPlugin, read_registry
from nrp_onnx.recordings.registry_entry import Entry

BASE = "https://brainscore-storage.s3.amazonaws.com/brainio-brainscore/"
SHA1 = "sha1:" + "0a" * 20
OWN = f"""
[own]
title = "Our recordings"
species = "marmoset"
regions = {{ MT = 7 }}
importer = "brainio"
[own.files]
assembly = {{ name = "a.nc", url = "https://lab.example/a.nc", hash = "{SHA1}", about_bytes = 5000 }}
stimuli = {{ name = "s.csv", url = "https://lab.example/s.csv", hash = "{SHA1}", about_bytes = 10 }}
images = {{ name = "i.zip", url = "https://lab.example/i.zip", hash = "{SHA1}" }}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NRP_ONNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NRP_ONNX_REGISTRY", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Writes the file that NRP_ONNX_REGISTRY names."""

    def write(text: str) -> Path:
        path: Path = tmp_path / "registry.toml"
        path.write_text(text)
        monkeypatch.setenv("NRP_ONNX_REGISTRY", str(path))
        return path

    return write


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Installs a package whose module lab_data has this code, with these entry points."""

    def install(code: str, **points: str) -> None:
        site = tmp_path / "site"
        info = site / "lab_data-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "lab_data.py").write_text(code)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-data\nVersion: 1.0\n")
        lines = [f"{name} = lab_data:{attribute}" for name, attribute in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[nrp_onnx.recordings]", *lines]) + "\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, "lab_data", raising=False)

    return install


def entry(name: str) -> Entry:
    found = read_registry(Notes())[name]
    assert isinstance(found, Entry)
    return found


def test_the_public_sets_of_this_package():
    majaj = entry("majajhong2015")
    assert majaj.regions == {"V4": 88, "IT": 168}
    assert (majaj.n_stimuli, majaj.importer) == (3200, "brainio")
    assert {role: (file.url, file.hash) for role, file in majaj.files.items()} == {
        "assembly": (
            f"{BASE}assy_dicarlo_MajajHong2015_public.nc",
            "sha1:13d28ca0ce88ee550b54db3004374ae19096e9b9",
        ),
        "stimuli": (
            f"{BASE}stimulus_hvm-public.csv",
            "sha1:5ca7a3da00d8e9c694a9cd725df5ba0ad6d735af",
        ),
        "images": (
            f"{BASE}stimulus_hvm-public.zip",
            "sha1:8aa44e038d7b551efa8077467622f9d48d72e473",
        ),
    }
    assert (majaj.visual_degrees, majaj.stratify_on) == (8, "object_name")
    freeman = entry("freemanziemba2013")
    assert (freeman.visual_degrees, freeman.stratify_on) == (4, "texture_type")
    assert freeman.options["window"] == [50, 200]
    assert freeman.regions == {"V1": 102, "V2": 103}
    assert freeman.files["images"].hash == "sha1:3a6fec1fc28c212882d6833e267ea8654d289611"
    assert all(file.url == BASE + file.name for file in freeman.files.values())


def test_a_second_file_adds_and_replaces(registry):
    before = entry("majajhong2015")
    registry(
        OWN + '[majajhong2015.files.stimuli]\nurl = "http://mirror.example/hvm.csv"\n'
        f'[majajhong2015.files.assembly]\nhash = "{SHA1}"\n'
        "[majajhong2015.options]\nnormalised = false\n"
    )
    assert entry("own").regions == {"MT": 7}
    after = entry("majajhong2015")
    assert after.files["stimuli"].url == "http://mirror.example/hvm.csv"
    assert after.files["stimuli"].hash == before.files["stimuli"].hash
    assert after.files["images"] == before.files["images"]
    assert after.files["assembly"].hash == SHA1
    assert after.files["assembly"].about_bytes is None, "that was the size of another file"
    assert after.options == before.options | {"normalised": False}
    assert after.citation == before.citation
    assert after.fingerprint != before.fingerprint


def test_a_mirror_alone_needs_no_new_import(registry):
    before = entry("majajhong2015").fingerprint
    registry('[majajhong2015.files.stimuli]\nurl = "http://mirror.example/hvm.csv"\n')
    assert entry("majajhong2015").fingerprint == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SHA1, "0a" * 20, r"\[own.files.assembly\]: the key hash is wrong; expected algorithm:"),
        (SHA1, "sha1:0a", "the key hash is wrong"),
        (SHA1, "crc:" + "0a" * 20, "the key hash is wrong"),
        ("https://lab.example/a.nc", "/mnt/a.nc", "the key url is wrong; expected an http"),
        ('"a.nc"', '"../a.nc"', r"the key name is wrong.*found '\.\./a\.nc'"),
        ('"a.nc"', '"S.csv"', r"\[own\]: two files have one name"),
        ("about_bytes = 10", "about_bytes = '10'", "the key about_bytes is wrong"),
        ("MT = 7", "MT = 0", r"the key regions is wrong; expected a number of sites"),
        ("MT = 7", "", r"the key regions is wrong"),
        ('species = "marmoset"', "", r"\[own\]: the key species is missing"),
        (
            'species = "marmoset"',
            'specis = "m"',
            r"the key 'specis' is unknown; expected keys out of title, ",
        ),
        ('"brainio"', '"nwb"', "there is no such importer; expected brainio; found nwb"),
        ("images =", "pictures =", r"expected files\.assembly, files\.stimuli, files\.images"),
        ("MT = 7 }", "MT = 7 }\nvisual_degrees = 200", "the key visual_degrees is wrong"),
        ("[own", "[Own", "this is no name for public recordings"),
        ("[own", "[simulated", "this is no name for public recordings"),
        (
            OWN,
            "own = 3",
            r"\[own\]: this is no table of keys; expected keys out of title, .*; found int",
        ),
        ("[own.files]", "options = {day = 2020-01-01}\n[own.files]", "the key options is wrong"),
        ("[own.files]", "[own", r"registry\.toml: the registry cannot be read.*unset NRP_ONNX"),
    ],
)
def test_a_wrong_second_file_is_one_line(old, new, message, registry):
    assert old in OWN
    path = registry(OWN.replace(old, new))
    with pytest.raises(RecordingsError, match=message) as caught:
        read_registry(Notes())
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_second_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("NRP_ONNX_REGISTRY", str(tmp_path / "none.toml"))
    with pytest.raises(RecordingsError, match=r"none\.toml: the registry cannot be read.*No such"):
        read_registry(Notes())


def test_an_option_that_the_importer_lacks_is_found_before_the_download(registry):
    registry(OWN + "[own.options]\nspeed = 3\n")
    with pytest.raises(RecordingsError, match="the importer brainio has no option speed"):
        public.open_public(entry("own"), Notes())


def test_a_function_of_a_plugin_gives_a_folder(plugins, folder):
    plugins(
        f'def ours():\n    """Recordings of our lab.\n\n    More."""\n    return {str(folder)!r}\n',
        ours="ours",
    )
    found = read_registry(Notes())["ours"]
    assert isinstance(found, FolderPlugin)
    assert found.title == "Recordings of our lab."
    assert found.source == "the plug-in ours of lab-data"
    assert open_recordings("ours", Notes()).name == "small"


def test_a_dict_of_a_plugin_is_an_entry_and_the_users_file_comes_last(plugins, registry):
    code = (
        f"import tomllib\nENTRY = tomllib.loads('''{OWN}''')['own']\n"
        "NOT_ONE = {'title': 'no'}\ndef fails():\n    raise OSError('no such share')\n"
    )
    points = {"theirs": "ENTRY", "majajhong2015": "ENTRY", "bad": "NOT_ONE", "gone": "absent"}
    plugins(code, **points, broken="fails")
    notes = Notes()
    found = read_registry(notes)
    assert found["theirs"].title == "Our recordings"
    assert isinstance(found["majajhong2015"], Entry)
    assert found["majajhong2015"].regions == {"V4": 88, "IT": 168}
    assert set(found) == {"majajhong2015", "freemanziemba2013", "theirs", "broken"}
    said = "\n".join(notes.said)
    assert "majajhong2015 of lab-data is left out: there are recordings of that name" in said
    assert "bad of lab-data, [bad]: the key species is missing" in said
    assert "gone of lab-data: it does not work; found AttributeError" in said
    with pytest.raises(
        RecordingsError, match=r"broken of lab-data: it does not work.*no such share"
    ):
        open_recordings("broken", Notes())
    registry('[theirs]\ntitle = "Mirrored"\n')
    assert entry("theirs").title == "Mirrored"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        RecordingsError, match=r"expected .*simulated:N, majajhong2015, freemanziemba2013; found no"
    ):
        open_recordings("majajhong", Notes())


def test_a_folder_beside_a_name_is_said(plugins, folder, tmp_path, monkeypatch):
    plugins(f"def ours():\n    return {str(folder)!r}\n", ours="ours")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours").mkdir()
    notes = Notes()
    assert open_recordings("Ours", notes).name == "small"
    notes = Notes()
    open_recordings("ours", notes)
    assert "write ./ours" in notes.said[0]
    with pytest.raises(RecordingsError, match=r"recordings\.json: no such file"):
        open_recordings("./ours", Notes())


def listed(*words: str) -> str:
    run = CliRunner().invoke(recordings_app, ["list", *words], catch_exceptions=False)
    assert run.exit_code == 0
    return run.stdout


def test_list_fits_80_columns(registry):
    registry(OWN.replace("[own", "[a-name-of-24-characters_"))
    lines = listed().splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines]
    assert ["majajhong2015", "macaque", "V4", "88", "3,200", "over", "152", "MB", "no"] in rows
    assert ["IT", "168"] in rows
    assert ["simulated", "SIMULATED", "V4", "88", "3,200", "rendered", "no"] in rows
    assert ["a-name-of-24-characters_", "marmoset", "MT", "7", "?", "over", "5", "kB", "no"] in rows
    text = " ".join(listed().split())
    assert "Licence: none stated; published by Brain-Score. Cite: Majaj, Hong, Solomon" in text
    assert "a-name-of-24-characters_: Our recordings. Licence: unknown." in text


def test_list_as_json(plugins, registry, folder):
    registry(OWN)
    plugins(f"def ours():\n    return {str(folder)!r}\n", ours="ours")
    found = {facts["name"]: facts for facts in json.loads(listed("--json"))}
    assert list(found) == ["simulated", "majajhong2015", "freemanziemba2013", "own", "ours"]
    majaj = found["majajhong2015"]
    assert (majaj["species"], majaj["n_sites"], majaj["n_stimuli"]) == ("macaque", 256, 3200)
    assert (majaj["cached"], majaj["folder"], majaj["simulated"]) == (False, None, False)
    assert "doi:10.1523" in majaj["citation"]
    assert found["own"]["about_bytes"] == 5010
    assert not found["own"]["sizes_are_known"]
    assert found["ours"]["n_sites"] is None
    assert found["simulated"]["simulated"]
    assert found["simulated"]["regions"] == {"V4": 88, "IT": 168}
