"""All baselines of a fold beside the same fits by scikit-learn, himalaya and ikpls.

Usage: python benchmarks/baselines.py [--images 3200] [--features 4096] [--layers 5] [--sites 256]

Needs himalaya (`pip install -e '.[bench]'`). Four fifths of the images train. Every library gets the joined
features, float64 and for PLS float32, too, as its user would give them, 17 alphas and one alpha a site, and is timed with one
thread of BLAS and with all of them (--threads); the sooner time counts. himalaya chooses alphas by 5 folds, its
default, ours and scikit-learn's by leave-one-out. For more features than images, scikit-learn's own
choice and its best is gcv_mode eigen, and himalaya's is KernelRidgeCV. Rounds are interleaved and the
best is kept. On a machine that others use, --cpu counts seconds of CPU; take --threads 1 with it.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from himalaya.backend import set_backend
from himalaya.kernel_ridge import KernelRidgeCV
from ikpls.numpy import PLS
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from nrp_onnx.activations.layer_file import LoadedLayer
from nrp_onnx.predictor.baselines import arc_cosine, fit_baselines, least_squares, predict_pls
from nrp_onnx.predictor.image_products import centred, join_layers, read_span, spectrum_of_products
from nrp_onnx.predictor.ridge import ALPHAS, Responses, fit_ridge


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("images", 3200), ("features", 4096), ("layers", 5), ("sites", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=2)
    cores = os.cpu_count() or 1
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, cores}))
    given = parser.parse_args()
    layers, y, train, test = _data(given)
    joined = np.hstack(layers).astype(np.float64)
    joined -= joined[train].mean(axis=0)
    joined /= np.sqrt((joined[train] ** 2).sum(axis=1).mean())
    set_backend("numpy")

    def fold() -> None:
        fit_baselines(spans, y[train], train, test)

    def spectrum() -> None:
        nonlocal of_images, of_new, with_new
        around = join_layers(spans, train).around(train)
        of_images = around.spectrum(train)
        with_new = around.products[np.ix_(test, train)]
        of_new = of_images.coordinates_of(with_new)

    def kernel() -> None:
        products = centred(arc_cosine(join_layers(spans, train).around(train).products), train)
        of_kernel = spectrum_of_products(products[np.ix_(train, train)])
        ridge = fit_ridge(of_kernel, Responses.of(y[train], of_kernel))
        ridge.predict(products[np.ix_(test, train)])

    def read() -> None:
        nonlocal spans
        spans = [read_span(LoadedLayer(x)) for x in layers]

    def theirs(model: object, x: np.ndarray = joined) -> Callable[[], None]:
        return lambda: model.fit(x[train], y[train]).predict(x[test])  # type: ignore[attr-defined]

    def ikpls(algorithm: int, x: np.ndarray = joined) -> Callable[[], None]:
        def fit() -> None:
            model = PLS(algorithm=algorithm, scale_X=False, scale_Y=False, dtype=x.dtype.type)
            model.fit(x[train], y[train].astype(x.dtype), 25)
            model.predict(x[test], n_components=25)

        return fit

    spans = [read_span(LoadedLayer(x)) for x in layers]
    of_images = of_new = with_new = None
    spectrum()
    cases = {
        "Gram matrices of all layers, once for all folds": read,
        "all baselines of a fold": fold,
        "spectrum of a fold": spectrum,
        "least squares, given the spectrum": lambda: least_squares(
            of_images, Responses.of(y[train], of_images), of_new
        ),
        "ridge, given the spectrum": lambda: fit_ridge(
            of_images, Responses.of(y[train], of_images)
        ).predict(with_new),
        "PLS, given the spectrum": lambda: predict_pls(
            *(x.astype(np.float32) for x in (of_images.coordinates, y[train], of_new))
        ),
        "kernel ridge, from the Gram matrices": kernel,
        "scikit-learn RidgeCV, gcv_mode eigen": theirs(
            RidgeCV(ALPHAS, alpha_per_target=True, gcv_mode="eigen")
        ),
        "himalaya KernelRidgeCV, linear": theirs(KernelRidgeCV(ALPHAS, kernel="linear")),
        "ikpls, algorithm 1": ikpls(1),
        "ikpls, algorithm 2": ikpls(2),
        "ikpls, algorithm 1, float32": ikpls(1, joined.astype(np.float32)),
    }
    seconds = dict.fromkeys(cases, np.inf)
    clock = time.process_time if given.cpu else time.perf_counter
    for _ in range(given.rounds):
        for name, case in cases.items():
            for threads in given.threads:
                with threadpool_limits(threads, user_api="blas"):
                    start = clock()
                    case()
                    seconds[name] = min(seconds[name], clock() - start)
            print(f"{name}: {seconds[name]:.2f} s", file=sys.stderr)
    _print(given, seconds)


def _data(given: argparse.Namespace) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    spread = np.arange(1, given.features + 1, dtype=np.float32) ** -0.5
    layers = [
        rng.standard_normal((given.images, given.features), dtype=np.float32) * spread
        for _ in range(given.layers)
    ]
    y = layers[0][:, :50] @ rng.standard_normal((50, given.sites))
    y = y + 3 * rng.standard_normal(y.shape)
    n_train = given.images * 4 // 5
    return layers, y, np.arange(n_train), np.arange(n_train, given.images)


def _print(given: argparse.Namespace, seconds: dict[str, float]) -> None:
    spectrum = seconds["spectrum of a fold"]
    gram = seconds["Gram matrices of all layers, once for all folds"]
    sk_ridge = seconds["scikit-learn RidgeCV, gcv_mode eigen"]
    himalaya = seconds["himalaya KernelRidgeCV, linear"]
    ikpls = min(seconds[name] for name in seconds if name.startswith("ikpls"))
    ridge_alone = gram + spectrum + seconds["ridge, given the spectrum"]
    fold = gram + seconds["all baselines of a fold"]
    others = min(sk_ridge, himalaya) + ikpls
    rows = [
        ("ridge, Gram matrices and spectrum included, scikit-learn", sk_ridge / ridge_alone),
        ("ridge, Gram matrices and spectrum included, himalaya", himalaya / ridge_alone),
        ("PLS, beside the ridge, ikpls", ikpls / seconds["PLS, given the spectrum"]),
        ("all our baselines; of the others, ridge and PLS alone", others / fold),
    ]
    print(
        f"\n{given.images * 4 // 5} training images, {given.layers} layers of {given.features} "
        f"features, {given.sites} sites; {platform.machine()}, {os.cpu_count()} cores, NumPy "
        f"{version('numpy')}, scikit-learn {version('scikit-learn')}, himalaya "
        f"{version('himalaya')}, ikpls {version('ikpls')}\n"
    )
    print("| compared | times as fast |\n|---|---|")
    for name, ratio in rows:
        print(f"| {name} | {ratio:.2f} |")
    print(f"\n| fit | seconds{' of CPU' if given.cpu else ''} |\n|---|---|")
    for name, time_ in seconds.items():
        print(f"| {name} | {time_:.2f} |")


if __name__ == "__main__":
    main()
