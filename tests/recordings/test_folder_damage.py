"""What is wrong with a folder is said in one line, by loading as by validating."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrp_onnx.errors import RecordingsError
from nrp_onnx.recordings import load_recordings, validate_recordings

Rows = list[Any]


def edit_csv(path: Path, change: Callable[[Rows], object]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def edit_rows(path: Path, change: Callable[[Rows], object]) -> None:
    rows = pq.read_table(path).to_pylist()
    change(rows)
    n_sites = len(rows[0]["responses"]) if rows else 3
    schema = pa.schema(
        {
            "stimulus_id": pa.string(),
            "repetition": pa.int32(),
            "responses": pa.list_(pa.float32(), n_sites),
        }
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def edit_json(path: Path, **entries: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def set_site(site: int, value: float) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for row in rows:
            row["responses"][site] = value

    return change


def reverse(rows: Rows) -> None:
    rows[1:] = rows[:0:-1]


def silence(rows: Rows) -> None:
    for row in rows:
        if row["stimulus_id"] == "dog":
            row["responses"] = [float("nan")] * 3


#: What is done to a good folder, and what the one line about it says.
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no stimuli.csv": (
        lambda f: (f / "stimuli.csv").unlink(),
        r"stimuli\.csv: no such file; expected columns stimulus_id, filename",
    ),
    "no sites.csv": (
        lambda f: (f / "sites.csv").unlink(),
        r"sites\.csv: no such file; expected columns site_id, region",
    ),
    "no responses": (
        lambda f: (f / "responses.parquet").unlink(),
        r"responses\.parquet: no such file; expected columns stimulus_id, repetition, responses",
    ),
    "no facts": (
        lambda f: (f / "recordings.json").unlink(),
        r"recordings\.json: no such file; expected format_version, name, units",
    ),
    "facts are no JSON": (
        lambda f: (f / "recordings.json").write_text("{"),
        r"recordings\.json: this is no JSON; found Expecting property name",
    ),
    "facts are no object": (
        lambda f: (f / "recordings.json").write_text("[1]"),
        r"recordings\.json: this is no table of keys; expected keys out of .*; found list",
    ),
    "a later format": (
        lambda f: edit_json(f / "recordings.json", format_version=2),
        r"recordings\.json: the key format_version is wrong; expected 1; found 2",
    ),
    "simulated in words": (
        lambda f: edit_json(f / "recordings.json", simulated="no"),
        r"the key simulated is wrong; expected true or false; found 'no'",
    ),
    "images of no size": (
        lambda f: edit_json(f / "recordings.json", visual_degrees=0),
        r"recordings\.json: the key visual_degrees is wrong; expected degrees, over 0 and at most",
    ),
    "a window that runs backwards": (
        lambda f: edit_json(f / "recordings.json", time_window_ms=[170, 70]),
        r"the key time_window_ms is wrong; expected two rising numbers, or null; found \[170",
    ),
    "no filename column": (
        lambda f: edit_csv(f / "stimuli.csv", lambda rows: rows[0].__setitem__(1, "file")),
        r"stimuli\.csv: the column filename is missing; expected columns stimulus_id, filename; "
        r"found stimulus_id, file, object_name",
    ),
    "no region column": (
        lambda f: edit_csv(f / "sites.csv", lambda rows: rows[0].__setitem__(1, "area")),
        r"sites\.csv: the column region is missing; .*found site_id, area, animal",
    ),
    "a site without region": (
        lambda f: edit_csv(f / "sites.csv", lambda rows: rows[2].__setitem__(1, "")),
        r"sites\.csv: 1 sites have no region; expected a region such as V4 .*found none for 'b'",
    ),
    "an uneven line": (
        lambda f: edit_csv(f / "sites.csv", lambda rows: rows[2].pop()),
        r"sites\.csv: line 3 does not fit the header; expected 3 fields; found 2",
    ),
    "an empty table": (
        lambda f: (f / "sites.csv").write_text("site_id,region\n"),
        r"sites\.csv: the table is empty; expected a row or more; found 0",
    ),
    "a table in another encoding": (
        lambda f: (f / "stimuli.csv").write_bytes(b"stimulus_id,filename\nk\xe4se,a.png\n"),
        r"stimuli\.csv: this is no table; expected a CSV file in UTF-8",
    ),
    "a stimulus twice": (
        lambda f: edit_csv(f / "stimuli.csv", lambda rows: rows.append(rows[2])),
        r"stimuli\.csv: a stimulus_id comes twice; expected each one once; found 'dog'",
    ),
    "a site twice": (
        lambda f: edit_csv(f / "sites.csv", lambda rows: rows[3].__setitem__(0, "a")),
        r"sites\.csv: a site_id comes twice; expected each one once; found 'a'",
    ),
    "a site too many": (
        lambda f: edit_csv(f / "sites.csv", lambda rows: rows.append(["d", "V4", "one"])),
        r"responses\.parquet: the lists of the column responses do not fit sites\.csv; "
        r"expected 4 numbers a row, one a site; found 3",
    ),
    "sites in another order": (
        lambda f: edit_csv(f / "sites.csv", reverse),
        r"responses\.parquet: site 0 of the lists is another than that of sites\.csv; "
        r"expected 'a'; found 'c' in sites\.csv",
    ),
    "an unknown stimulus": (
        lambda f: edit_rows(
            f / "responses.parquet", lambda rows: rows.append({**rows[0], "stimulus_id": "yak"})
        ),
        r"responses\.parquet: 1 stimulus_ids are unknown; expected ids of stimuli.*found 'yak'",
    ),
    "a missing image": (
        lambda f: (f / "stimuli" / "owl.png").unlink(),
        r"stimuli: 1 of 4 images are missing; expected the files that stimuli\.csv names; "
        r"found no 'owl\.png'",
    ),
    "a silent stimulus": (
        lambda f: edit_rows(f / "responses.parquet", silence),
        r"responses\.parquet: 1 of 4 stimuli have no response; .*found none of 'dog'",
    ),
    "no presentations": (
        lambda f: edit_rows(f / "responses.parquet", lambda rows: rows.clear()),
        r"4 of 4 stimuli have no response; .*found none of 'cat', 'dog', 'owl' and 1 more",
    ),
    "a dead site": (
        lambda f: edit_rows(f / "responses.parquet", set_site(1, float("nan"))),
        r"responses\.parquet: 1 of 3 sites have no response; .*found NaN only for 'b'",
    ),
    "a repetition twice": (
        lambda f: edit_rows(f / "responses.parquet", lambda rows: rows.append(rows[0])),
        r"responses\.parquet: 1 repetitions of a stimulus come twice; expected each pair of "
        r"stimulus_id and repetition once; found '\w+', repetition \d, twice",
    ),
    "an infinite response": (
        lambda f: edit_rows(f / "responses.parquet", lambda rows: set_site(2, np.inf)(rows[:1])),
        r"responses\.parquet: 1 responses are infinite; .*found one of site c to '\w+'",
    ),
    "a filename that climbs out": (
        lambda f: edit_csv(
            f / "stimuli.csv", lambda r: r[1].__setitem__(1, "../../images/cat.png")
        ),
        r"stimuli\.csv: 1 filenames leave the folder of stimuli; expected names relative to "
        r"stimuli/, without \.\.; found '\.\./\.\./images/cat\.png'",
    ),
    "an absolute filename": (
        lambda f: edit_csv(f / "stimuli.csv", lambda rows: rows[1].__setitem__(1, "/etc/passwd")),
        r"stimuli\.csv: 1 filenames leave the folder of stimuli; .*found '/etc/passwd'",
    ),
    "no Parquet": (
        lambda f: (f / "responses.parquet").write_bytes(b"PAR1 but no more"),
        r"responses\.parquet: this file cannot be read; expected a whole Parquet file",
    ),
    "no column of responses": (
        lambda f: pq.write_table(
            pq.read_table(f / "responses.parquet").drop(["responses"]), f / "responses.parquet"
        ),
        r"responses\.parquet: the column responses is missing; .*found stimulus_id, repetition",
    ),
    "numbers for lists": (
        lambda f: pq.write_table(
            pq.read_table(f / "responses.parquet").set_column(2, "responses", [[1.0] * 12]),
            f / "responses.parquet",
        ),
        r"the column responses holds no lists of numbers; expected FixedSizeList<float32>; "
        r"found double",
    ),
    "true rates of some stimuli only": (
        lambda f: pq.write_table(
            pq.read_table(f / "noise_free.parquet").slice(1), f / "noise_free.parquet"
        ),
        r"noise_free\.parquet: the true rates are not complete; .*each of 4 stimuli; found 3",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line_that_names_the_file(folder, name):
    damage, says = DAMAGES[name]
    damage(folder)
    with pytest.raises(RecordingsError, match=says) as raised:
        load_recordings(folder)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(raised.value) in validate_recordings(folder)


def test_there_must_be_a_folder(tmp_path):
    with pytest.raises(RecordingsError, match=r"nowhere: no such recordings.*found nothing"):
        load_recordings(tmp_path / "nowhere")
