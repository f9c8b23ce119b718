"""The import of real recordings: 50 sites of macaque V4, 640 images."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import gammaln

from nrp_onnx.recordings import (
    Recordings,
    describe_recordings,
    import_arrays,
    site_reliability,
    split_half_reliability,
    trial_noise,
    validate_recordings,
)

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "macaque_v4_210325"

pytestmark = pytest.mark.skipif(
    not (DATA / "responses.npy").is_file(), reason=f"the real recordings are not at {DATA}"
)


@pytest.fixture(scope="module")
def macaque(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    return import_arrays(
        DATA / "images.zip",
        DATA / "responses.npy",
        tmp_path_factory.mktemp("macaque") / "recordings",
        axes=("site", "stimulus", "repetition"),
        region="V4",
        stimuli=DATA / "stimuli.csv",
        units="spikes",
    )


def test_averages_are_those_of_the_array(macaque):
    array = np.load(DATA / "responses.npy", allow_pickle=False)
    np.testing.assert_allclose(macaque.averages, np.nanmean(array, axis=2).T, rtol=1e-6)
    np.testing.assert_array_equal(macaque.repetition_counts(), (~np.isnan(array)).sum(axis=2).T)


def test_the_facts_are_those_of_its_readme(macaque):
    facts = describe_recordings(macaque)
    assert (facts["n_stimuli"], facts["n_sites"], facts["regions"]) == (640, 50, {"V4": 50})
    assert (facts["repetitions"]["min"], facts["repetitions"]["max"]) == (6, 10)
    assert facts["image_sizes"] == {"112x112": 640}
    assert set(facts["labels"]["object_name"]["classes"].values()) == {80}
    assert facts["labels"]["object_name"]["n_classes"] == 8
    assert validate_recordings(macaque.stimulus_paths[0].parents[1]) == []


def test_the_noise_floor_is_that_of_gaussian_trials(macaque):
    """E|e| = s / c4 sqrt(2 / (pi n)); c4 mends the sample's standard deviation, which is low."""
    array = np.load(DATA / "responses.npy", allow_pickle=False)
    n = (~np.isnan(array)).sum(axis=2)
    c4 = np.sqrt(2 / (n - 1)) * np.exp(gammaln(n / 2) - gammaln((n - 1) / 2))
    by_formula = np.nanstd(array, axis=2, ddof=1) / c4 * np.sqrt(2 / np.pi / n)
    deviation = macaque.averages.std(axis=0)
    z = trial_noise(macaque, seed=0) / deviation
    assert z.mean() == pytest.approx((by_formula / deviation[:, None]).mean(), rel=0.01)
    # What an independent prototype found, without c4.
    assert z.mean() == pytest.approx(0.364, abs=0.02)


def test_the_reliability_is_that_of_its_readme(macaque):
    """0.75, the median over sites that an independent prototype found."""
    assert np.median(site_reliability(macaque)) == pytest.approx(0.75, abs=0.015)
    assert describe_recordings(macaque)["reliability"]["V4"] == pytest.approx(0.75, abs=0.015)
    array = np.load(DATA / "responses.npy", allow_pickle=False)
    found = split_half_reliability(macaque, seed=0, n_splits=1)[0]
    # Any other split of the ten repetitions gives nearly the same for each site.
    odd, even = np.nanmean(array[..., 0::2], axis=2), np.nanmean(array[..., 1::2], axis=2)
    r = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(odd, even, strict=True)])
    assert np.corrcoef(found, 2 * r / (1 + r))[0, 1] > 0.9
