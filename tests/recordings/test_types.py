from dataclasses import replace

import numpy as np
import pytest

from nrp_onnx.errors import OptionError, RecordingsError


def test_averages_are_the_mean_over_the_repetitions_that_are_there(recordings):
    for stimulus in range(4):
        rows = recordings.responses[recordings.presentation_stimulus == stimulus]
        expected = np.nanmean(rows.astype(np.float64), axis=0)
        np.testing.assert_allclose(recordings.averages[stimulus], expected, rtol=1e-12)
    assert recordings.averages.dtype == np.float64


def test_a_lost_response_is_counted_once_less(recordings):
    expected = np.full((4, 3), 3)
    expected[recordings.presentation_stimulus[4], 1] = 2
    np.testing.assert_array_equal(recordings.repetition_counts(), expected)


@pytest.mark.filterwarnings("error")
def test_what_was_never_recorded_is_nan_without_a_warning(recordings):
    responses = recordings.responses.copy()
    responses[recordings.presentation_stimulus == 2, 0] = np.nan
    averages = replace(recordings, responses=responses).averages
    assert np.argwhere(np.isnan(averages)).tolist() == [[2, 0]]


def test_regions_come_in_the_order_of_the_sites(recordings):
    assert recordings.region_names == ("V4", "IT")
    assert (recordings.n_stimuli, recordings.n_sites) == (4, 3)


def test_selecting_a_region_keeps_its_sites_only(recordings):
    v4 = recordings.select_regions(["V4"])
    assert v4.site_ids == ("a", "c")
    assert v4.regions == ("V4", "V4")
    assert v4.site_labels == {"animal": ("one", "two")}
    np.testing.assert_array_equal(v4.responses, recordings.responses[:, [0, 2]])
    np.testing.assert_array_equal(v4.noise_free, recordings.noise_free[:, [0, 2]])
    np.testing.assert_array_equal(v4.averages, recordings.averages[:, [0, 2]])


def test_an_unknown_region_is_named_beside_the_known(recordings):
    with pytest.raises(OptionError, match=r"no such region.*one or more of V4, IT.*found V1"):
        recordings.select_regions(["V4", "V1"])
    with pytest.raises(OptionError, match="no region is named"):
        recordings.select_regions([])


@pytest.mark.parametrize(
    "field",
    [
        *("responses", "repetition", "presentation_stimulus", "stimulus_ids", "stimulus_paths"),
        *("stimulus_labels", "site_ids", "site_labels", "regions", "units", "normalised"),
        *("visual_degrees", "stratify_on"),
    ],
)
def test_the_fingerprint_depends_on_all_that_can_change_a_score(recordings, field):
    values = {
        "responses": recordings.responses + np.float32(1e-3),
        "repetition": recordings.repetition[::-1],
        "presentation_stimulus": recordings.presentation_stimulus[::-1],
        "regions": ("V4", "IT", "IT"),
        "site_labels": {"animal": ("one", "one", "two")},
        "units": "spikes/s",
        "normalised": True,
        "stimulus_ids": ("cat", "dog", "owl", "ant"),
        "stimulus_labels": {"object_name": ("mammal", "bird", "bird", "fish")},
        "site_ids": ("a", "b", "d"),
        "stimulus_paths": recordings.stimulus_paths[::-1],
        "visual_degrees": 10.0,
        "stratify_on": "object_name",
    }
    other = replace(recordings, **{field: values[field]})
    assert other.fingerprint != recordings.fingerprint
    of_stimuli = other.stimuli_fingerprint != recordings.stimuli_fingerprint
    assert of_stimuli == (field in ("stimulus_ids", "stimulus_paths"))


def test_the_fingerprint_does_not_depend_on_where_the_data_lie(recordings, tmp_path):
    moved = tmp_path / "elsewhere"
    recordings.stimulus_paths[0].parent.rename(moved)
    paths = tuple(moved / path.name for path in recordings.stimulus_paths)
    other_nan = recordings.responses.copy()
    other_nan[np.isnan(other_nan)] = np.array(0xFFC00001, np.uint32).view(np.float32)
    there = replace(recordings, stimulus_paths=paths, name="other", responses=other_nan)
    with pytest.raises(RecordingsError, match=r"cat\.png: the image of stimulus cat cannot"):
        _ = recordings.fingerprint
    again = replace(there, responses=recordings.responses)
    assert len(there.fingerprint) == 64
    assert there.fingerprint == again.fingerprint
