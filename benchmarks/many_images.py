"""Fits to many images and many sites: time and peak memory, each in a process of its own.

python benchmarks/many_images.py            growth from 5,000 to 20,000 images
python benchmarks/many_images.py tvsd       22,248 train images shown once, 100 test images 30 times, 1,024 sites
python benchmarks/many_images.py triple-n   1,000 images, 21,059 sites, five folds, --search quick
python benchmarks/many_images.py ridge      ridge alone beside those of scikit-learn and himalaya

Activations and responses are random numbers in the shapes of real ones: five layers of 7 x 7 positions
and 128 channels; a site sees a Gaussian of one layer. Images are not decoded: extraction is measured
by extraction.py.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

N_LAYERS, SIDE, CHANNELS, LATENTS = 5, 7, 128, 60
_BLOCK = 500


@dataclass(frozen=True)
class Case:
    """What is fitted: images of each part, repetitions of test images, sites of each region."""

    n_train: int
    n_test: int
    repetitions: int
    sites: dict[str, int]
    search: str = "default"
    memory: str = "4GB"


CASES = {
    "5000": Case(4900, 100, 10, {"V4": 256}),
    "10000": Case(9900, 100, 10, {"V4": 256}),
    "20000": Case(19900, 100, 10, {"V4": 256}),
    "tvsd": Case(22248, 100, 30, {"V1": 512, "V4": 192, "IT": 320}),
    "triple-n": Case(0, 1000, 3, {"IT": 21059}, "quick", "2GB"),
    "sites-5000": Case(9900, 100, 10, {"IT": 5000}, "quick"),
}


def make_layers(folder: Path, n: int) -> list[Path]:
    """Stored activations of n images, each layer a smooth map of the same latents, with noise."""
    from nrp_onnx.activations.layer_writer import LayerWriter

    rng = np.random.default_rng(0)
    paths = [folder / f"layer{place}.parquet" for place in range(N_LAYERS)]
    positions = SIDE * SIDE
    where = rng.standard_normal((N_LAYERS, LATENTS, positions)).astype(np.float32)
    what = rng.standard_normal((N_LAYERS, LATENTS, CHANNELS)).astype(np.float32) / 4
    writers = [LayerWriter(path, CHANNELS * positions, {"fingerprint": "0"}) for path in paths]
    for start in range(0, n, _BLOCK):
        ids = [f"s{place:06d}" for place in range(start, min(start + _BLOCK, n))]
        latents = rng.standard_normal((len(ids), LATENTS), dtype=np.float32)
        for place, writer in enumerate(writers):
            local = latents[:, :, None] * where[place]
            maps = np.einsum("nlp,lc->ncp", local, what[place], optimize=True)
            maps += rng.standard_normal(maps.shape, dtype=np.float32)
            writer.write(ids, np.maximum(maps, 0).reshape(len(ids), -1))
    for writer in writers:
        writer.close()
    return paths


def make_rates(paths: list[Path], ids: tuple[str, ...], n_sites: int) -> np.ndarray:
    """True rates, float64 (n, n_sites): each site sees a Gaussian of one layer, squared."""
    from nrp_onnx.activations.layer_file import StoredLayer

    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIDE, :SIDE]
    drives = np.zeros((len(ids), n_sites))
    for place, path in enumerate(paths):
        sites = np.arange(place, n_sites, len(paths))
        centres = rng.uniform(1, SIDE - 2, (len(sites), 2))
        squares = (y - centres[:, :1, None]) ** 2 + (x - centres[:, 1:, None]) ** 2
        masks = np.exp(-squares / 4).reshape(len(sites), -1).astype(np.float32)
        weights = rng.standard_normal((len(sites), CHANNELS)).astype(np.float32)
        both = (weights[:, :, None] * masks[:, None]).reshape(len(sites), -1).T
        for rows, block in StoredLayer(path, ids).blocks():
            drives[np.ix_(rows, sites)] = block @ both
    drives = (drives - drives.mean(axis=0)) / drives.std(axis=0)
    return 5 * np.log1p(np.exp(drives))


def make_recordings(case: Case, rates: np.ndarray, ids: tuple[str, ...]):  # type: ignore[no-untyped-def]
    """Poisson counts: train images shown once, test images so often as the case says."""
    from nrp_onnx.recordings import Recordings

    rng = np.random.default_rng(2)
    shown = np.concatenate(
        [np.arange(case.n_train), np.repeat(np.arange(case.n_train, len(ids)), case.repetitions)]
    )
    first = case.n_train
    repetition = np.concatenate(
        [
            np.zeros(first, np.int32),
            np.tile(np.arange(case.repetitions, dtype=np.int32), case.n_test),
        ]
    )
    responses = np.empty((len(shown), rates.shape[1]), np.float32)
    for start in range(0, len(shown), 1000):
        some = slice(start, start + 1000)
        responses[some] = rng.poisson(rates[shown[some]])
    regions = tuple(name for name, n in case.sites.items() for _ in range(n))
    return Recordings(
        name="random",
        stimulus_ids=ids,
        stimulus_paths=tuple(Path(x) for x in ids),
        stimulus_labels={},
        site_ids=tuple(f"site{place}" for place in range(rates.shape[1])),
        regions=regions,
        site_labels={},
        responses=responses,
        presentation_stimulus=shown.astype(np.int64),
        repetition=repetition,
        simulated=True,
    )


def run_case(name: str, folder: Path) -> None:
    """Fit and measure one case, and print its figures as JSON."""
    from nrp_onnx.activations.layer_file import StoredLayer
    from nrp_onnx.backbone.layers import Grid
    from nrp_onnx.engine import LocalEngine
    from nrp_onnx.predictor.channels import SeenLayer
    from nrp_onnx.predictor.memory import choose_sizes, parse_budget
    from nrp_onnx.predictor.search_space import PRESETS
    from nrp_onnx.predictor.trials import TrialRecord
    from nrp_onnx.recordings.fixed_splits import FixedSplit
    from nrp_onnx.scoring.folds import fit_folds, spans_of
    from nrp_onnx.scoring.regions import measure_regions
    from nrp_onnx.scoring.splits import fixed_split, held_out_alone, outer_folds

    case = CASES[name]
    n = case.n_train + case.n_test
    ids = tuple(f"s{place:06d}" for place in range(n))
    paths = [folder / f"layer{place}.parquet" for place in range(N_LAYERS)]
    with np.load(folder / "rates.npz") as held:
        recordings = make_recordings(case, held["rates"], ids)
    layers = [StoredLayer(path, ids) for path in paths]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if case.n_train:
        split = FixedSplit(ids[: case.n_train], ids[case.n_train :])
        folds = fixed_split(recordings, split, 0)
    else:
        folds = outer_folds(recordings, 5, 0)
    seen = [SeenLayer(layer, Grid(SIDE, SIDE, CHANNELS, True)) for layer in layers]
    widths, positions = [layer.shape[1] for layer in layers], [SIDE * SIDE] * len(layers)
    sizes = choose_sizes(parse_budget(case.memory), n, recordings.n_sites, widths, positions)
    names = [f"layer{place}" for place in range(N_LAYERS)]
    space = replace(PRESETS[case.search])
    start = time.perf_counter()
    spans = [] if sizes else spans_of(layers, LocalEngine(), folder)
    with tempfile.TemporaryDirectory() as record:
        fits = fit_folds(
            spans, names, recordings, folds, space, "zscore", 0,
            TrialRecord(Path(record) / "trials.parquet", names), seen=seen, primal=sizes,
        )  # fmt: skip
    fitted = time.perf_counter() - start
    measured = measure_regions(*_of(held_out_alone(recordings, folds, fits.kept), fits), seed=0)
    print(
        json.dumps(
            {
                "case": name,
                "n": n,
                "sites": recordings.n_sites,
                "sizes": str(sizes),
                "fit_s": round(fitted, 1),
                "measure_s": round(time.perf_counter() - start - fitted, 1),
                "before_gib": round(before / 2**20, 2),
                "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
                "mae": {
                    key: round(
                        float(np.mean([r.predictors[key].mae for r in measured.regions.values()])),
                        4,
                    )
                    for key in fits.predictions
                },
            }
        )
    )


def _of(held_out, fits):  # type: ignore[no-untyped-def]
    recordings, folds = held_out
    return recordings, fits, folds


def measure(names: list[str], folder: Path) -> list[dict[str, object]]:
    """Each case in a process of its own."""
    found = []
    for name in names:
        case = CASES[name]
        n = case.n_train + case.n_test
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            paths = make_layers(Path(scratch), n)
            ids = tuple(f"s{place:06d}" for place in range(n))
            np.savez(
                Path(scratch) / "rates.npz", rates=make_rates(paths, ids, sum(case.sites.values()))
            )
            run = subprocess.run(
                [sys.executable, __file__, "--one", name, scratch],
                capture_output=True,
                text=True,
                check=False,
            )
        if run.returncode:
            sys.exit(run.stderr)
        found.append(json.loads(run.stdout.splitlines()[-1]))
        print(json.dumps(found[-1]), flush=True)
    return found


def ridge(n: int = 20000, n_features: int = 2045, n_sites: int = 1024) -> None:
    """Ridge of one decomposition, alpha a site from the same grid, beside other people's."""
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV
    from sklearn.linear_model import RidgeCV

    from nrp_onnx.predictor.primal_ridge import Features
    from nrp_onnx.predictor.ridge import ALPHAS, Responses

    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, n_features), dtype=np.float32) / np.arange(1, n_features + 1) ** 0.5
    y = x @ rng.standard_normal((n_features, n_sites)) + 2 * rng.standard_normal((n, n_sites))
    x -= x.mean(axis=0)
    y -= y.mean(axis=0)
    alphas = ALPHAS * float(np.square(x).sum(axis=1).mean())

    def own() -> np.ndarray:
        of = Features.of(x, np.arange(n))
        return of.ridge(Responses.of(y, of.spectrum)).weights

    def of_scikit_learn() -> np.ndarray:
        model = RidgeCV(alphas, alpha_per_target=True, fit_intercept=False)
        return model.fit(x.astype(np.float64), y).coef_.T

    def of_himalaya() -> np.ndarray:
        return HimalayaRidgeCV(alphas, fit_intercept=False, cv=5).fit(x, y.astype(np.float32)).coef_

    times, found = {}, {}
    for name, fit in (("own", own), ("scikit-learn", of_scikit_learn), ("himalaya", of_himalaya)):
        start = time.perf_counter()
        found[name] = np.asarray(fit())
        times[name] = round(time.perf_counter() - start, 1)
        apart = np.abs(x[:1000] @ (found[name] - found["own"])).max() / y.std()
        print(
            json.dumps({"ridge": name, "seconds": times[name], "apart_sd": float(apart)}),
            flush=True,
        )
    for name in ("scikit-learn", "himalaya"):
        print(f"{name}: {times[name] / times['own']:.1f} times as long")


def main() -> None:
    if sys.argv[1:] == ["ridge"]:
        ridge()
        return
    if sys.argv[1:2] == ["--one"]:
        run_case(sys.argv[2], Path(sys.argv[3]))
        return
    names = sys.argv[1:] or ["5000", "20000"]
    found = {str(one["case"]): one for one in measure(names, Path.cwd())}
    if {"5000", "20000"} <= set(found):
        few, many = found["5000"], found["20000"]
        for key in ("fit_s", "peak_gib"):
            print(
                f"{key}: {float(many[key]) / float(few[key]):.2f} times from 5,000 to 20,000 images"
            )  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
