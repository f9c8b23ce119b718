import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nrp_onnx.errors import OutputError, RecordingsError
from nrp_onnx.recordings import load_recordings, save_recordings


def test_what_is_saved_is_loaded(recordings, folder):
    loaded = load_recordings(folder)
    arrays = {"responses", "presentation_stimulus", "repetition", "noise_free"}
    for name in {field.name for field in fields(recordings)} - arrays - {"stimulus_paths"}:
        assert getattr(loaded, name) == getattr(recordings, name), name
    for name in arrays:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(recordings, name))
        assert getattr(loaded, name).dtype == getattr(recordings, name).dtype, name
    for old, new in zip(recordings.stimulus_paths, loaded.stimulus_paths, strict=True):
        assert new.parent == folder / "stimuli"
        assert new.read_bytes() == old.read_bytes()
    assert loaded.fingerprint == recordings.fingerprint


def test_the_facts_of_the_documentation_are_read(folder):
    page = Path(__file__).parents[2] / "docs" / "recordings.md"
    found = re.search(r"`recordings\.json`:\n\n```\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    (folder / "recordings.json").write_text(found[1])
    loaded = load_recordings(folder)
    assert (loaded.name, loaded.time_window_ms) == ("two animals", (70, 170))
    assert (loaded.visual_degrees, loaded.stratify_on) == (8, "object_name")
    least = {key: json.loads(found[1])[key] for key in ("format_version", "name", "units")}
    least |= {"normalised": False, "simulated": False}
    (folder / "recordings.json").write_text(json.dumps(least))
    loaded = load_recordings(folder)
    assert (loaded.visual_degrees, loaded.stratify_on) == (None, None)


def test_pandas_reads_the_responses(recordings, folder):
    table = pd.read_parquet(folder / "responses.parquet")
    assert list(table.columns) == ["stimulus_id", "repetition", "responses"]
    row = table[(table.stimulus_id == "owl") & (table.repetition == 2)]
    where = (recordings.presentation_stimulus == 2) & (recordings.repetition == 2)
    np.testing.assert_array_equal(np.stack(row.responses), recordings.responses[where])


def test_the_parquet_has_lists_of_fixed_size_without_a_dictionary(folder):
    file = pq.ParquetFile(folder / "responses.parquet")
    assert file.schema_arrow.field("responses").type == pa.list_(pa.float32(), 3)
    group = file.metadata.row_group(0)
    encodings = {e for i in range(group.num_columns) for e in group.column(i).encodings}
    assert not any("DICTIONARY" in encoding for encoding in encodings)


def test_rows_pair_by_stimulus_id_not_by_order(recordings, folder):
    for path in (folder / "responses.parquet", folder / "noise_free.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.take(list(reversed(range(len(table))))), path)
    lines = (folder / "stimuli.csv").read_text().splitlines()
    (folder / "stimuli.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    loaded = load_recordings(folder)
    assert loaded.stimulus_ids == recordings.stimulus_ids[::-1]
    np.testing.assert_allclose(loaded.averages[::-1], recordings.averages)
    assert loaded.noise_free is not None
    np.testing.assert_array_equal(loaded.noise_free[::-1], recordings.noise_free)
    assert loaded.stimulus_paths[0].name == "eel.png"


def test_lists_as_pandas_writes_them_are_read_too(recordings, folder):
    table = pd.read_parquet(folder / "responses.parquet")
    table["responses"] = [row.astype(np.float64) for row in table["responses"]]
    table.to_parquet(folder / "responses.parquet")
    np.testing.assert_array_equal(load_recordings(folder).responses, recordings.responses)


def test_images_of_one_name_in_two_folders_are_kept_apart(changed, recordings, tmp_path):
    twin = tmp_path / "more" / recordings.stimulus_paths[0].name
    twin.parent.mkdir()
    twin.write_bytes(recordings.stimulus_paths[1].read_bytes())
    paths = (recordings.stimulus_paths[0], twin, *recordings.stimulus_paths[2:])
    saved = save_recordings(changed(stimulus_paths=paths), tmp_path / "twins")
    assert [path.read_bytes() for path in saved.stimulus_paths] == [p.read_bytes() for p in paths]


def test_a_taken_place_is_left_alone(recordings, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"taken: the place is taken; expected a new or empty"):
        save_recordings(recordings, taken)
    assert [path.name for path in taken.iterdir()] == ["thesis.txt"]


def test_nothing_is_written_if_an_image_is_gone(recordings, tmp_path):
    recordings.stimulus_paths[3].unlink()
    with pytest.raises(FileNotFoundError):
        save_recordings(recordings, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_recordings_that_could_not_be_loaded_are_not_saved(changed, recordings, tmp_path):
    dead = recordings.responses.copy()
    dead[:, 2] = np.nan
    with pytest.raises(RecordingsError, match=r"1 of 3 sites have no response.*'c'"):
        save_recordings(changed(responses=dead), tmp_path / "out")
    assert not (tmp_path / "out").exists()
