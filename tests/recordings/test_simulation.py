from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nrp_onnx.errors import OutputError
from nrp_onnx.recordings import (
    Recordings,
    describe_recordings,
    simulate_recordings,
    validate_recordings,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    simulate_recordings(tmp_path / "a", 40)
    simulate_recordings(tmp_path / "b", 40)
    first = contents(tmp_path / "a")
    assert len(first) == 40 + 5
    assert first == contents(tmp_path / "b")


def test_another_seed_gives_other_images_sites_and_noise(tmp_path):
    one = simulate_recordings(tmp_path / "0", 16, seed=0)
    two = simulate_recordings(tmp_path / "1", 16, seed=1)
    assert not {path.read_bytes() for path in one.stimulus_paths} & {
        path.read_bytes() for path in two.stimulus_paths
    }
    assert one.site_labels != two.site_labels
    assert not np.allclose(one.averages, two.averages)


def test_fewer_stimuli_are_the_first_of_more(simulated, tmp_path):
    few = simulate_recordings(tmp_path / "few", 24)
    assert few.stimulus_ids == simulated.stimulus_ids[:24]
    for path, same in zip(few.stimulus_paths, simulated.stimulus_paths, strict=False):
        assert path.read_bytes() == same.read_bytes()


def test_categories_sites_and_repetitions_are_as_in_the_paper(simulated):
    labels = Counter(simulated.stimulus_labels["object_name"])
    assert set(labels) == {
        "animal", "boat", "car", "chair", "face", "fruit", "plane", "table"
    }  # fmt: skip
    assert set(labels.values()) == {240 // 8}
    assert Counter(simulated.regions) == {"V4": 88, "IT": 168}
    assert len(set(simulated.site_labels["animal"])) == 2
    np.testing.assert_array_equal(simulated.repetition_counts(), 10)
    assert simulated.simulated
    assert simulated.normalised
    assert simulated.time_window_ms == (70.0, 170.0)
    assert "blank" in simulated.units


def test_images_are_rgb_and_differ(simulated):
    assert validate_recordings(simulated.stimulus_paths[0].parents[1]) == []
    assert describe_recordings(simulated)["image_sizes"] == {"128x128": 240}
    with Image.open(simulated.stimulus_paths[0]) as image:
        assert image.mode == "RGB"
    assert len({path.read_bytes() for path in simulated.stimulus_paths}) == 240


def test_the_object_lies_where_its_labels_say(simulated, tmp_path):
    """Objects are the only sharp edges: the edges' centre follows x and y."""
    found = []
    for path in simulated.stimulus_paths:
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"), float)
        edges = np.hypot(*np.gradient(grey)) ** 2
        y, x = np.mgrid[0.5:-0.5:128j, -0.5:0.5:128j]
        found.append([(edges * x).sum() / edges.sum(), (edges * y).sum() / edges.sum()])
    for place, name in enumerate("xy"):
        said = np.array(simulated.stimulus_labels[name], float)
        assert np.corrcoef(np.array(found)[:, place], said)[0, 1] > 0.7


def counts_of(recordings: Recordings) -> tuple[np.ndarray, np.ndarray]:
    """Spike counts (n_stimuli, 10, n_sites), and their expectation, by undoing the units."""
    assert recordings.noise_free is not None
    blank = np.array(recordings.site_labels["blank_count"], float)
    scale = np.sqrt(recordings.provenance["fano_factor"] * blank)
    counts = recordings.responses.reshape(-1, 10, recordings.n_sites) * scale + blank
    return counts, recordings.noise_free * scale + blank


def test_responses_are_spike_counts_relative_to_a_blank(simulated):
    counts, expected = counts_of(simulated)
    np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    assert counts.min() > -1e-4
    blank = np.array(simulated.site_labels["blank_count"], float)
    assert (expected > blank - 1e-4).all()


def test_noise_free_is_the_expectation_and_the_variance_is_fano_times_it(simulated):
    counts, expected = counts_of(simulated)
    fano = simulated.provenance["fano_factor"]
    assert 1 < fano < 2
    # Averages in units of their standard error: mean 0, variance 1, over 240 x 256 of them.
    z = (counts.mean(axis=1) - expected) / np.sqrt(fano * expected / 10)
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert z.var() == pytest.approx(1, abs=5 * np.sqrt(2 / z.size) + 0.01)
    # And site by site, which a wrong unit of one site would break.
    by_site = z.mean(axis=0) * np.sqrt(len(z))
    assert np.abs(by_site).max() < 5
    within = counts.var(axis=1, ddof=1).mean(axis=0) / expected.mean(axis=0)
    assert within.mean() == pytest.approx(fano, abs=0.01)


def test_sites_are_about_as_reliable_as_real_ones(simulated):
    responses = simulated.responses.reshape(-1, 10, simulated.n_sites)
    halves = responses[:, ::2].mean(axis=1), responses[:, 1::2].mean(axis=1)
    r = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(halves[0].T, halves[1].T, strict=True)])
    assert 0.7 < np.median(2 * r / (1 + r)) < 0.92


def test_it_prefers_categories_more_than_v4_does(simulated):
    """Share of the noise-free variance that the category explains."""
    labels = np.array(simulated.stimulus_labels["object_name"])
    rates = simulated.noise_free
    means = np.stack([rates[labels == name].mean(axis=0) for name in labels])
    share = means.var(axis=0) / rates.var(axis=0)
    regions = np.array(simulated.regions)
    assert np.median(share[regions == "IT"]) > 2 * np.median(share[regions == "V4"])


def test_a_taken_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="the place is taken"):
        simulate_recordings(tmp_path, 16)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
