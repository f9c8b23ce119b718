"""What makes a pipeline fail: an NRP-error over a bound, and a run that is worse than another."""

from collections.abc import Mapping

from nrp_onnx.scoring.comparison import Comparison


def regions_above(errors: Mapping[str, float], bound: float) -> list[str]:
    """A line for each region whose NRP-error is over a bound, or no number.

    Example:
        >>> regions_above({"V4": 0.5871, "IT": 0.6118}, 0.6)
        ['IT: NRP-error 0.612 is above 0.6']

    Args:
        errors: by region, in the units of the score.
        bound: in the same units.
    """
    return [
        f"{name}: NRP-error {_beyond(error, bound)} is above {bound:g}"
        for name, error in errors.items()
        if not error <= bound
    ]


def regions_worse(comparison: Comparison, first: str, last: str) -> list[str]:
    """A line for each region in which one run is worse than another.

    It is worse where the 95 % interval of its NRP-error less that of the other, paired by image and
    site, lies above 0.

    Args:
        first, last: folders of two of the compared runs; is the last one worse?
    """
    (pair,) = (pair for pair in comparison.pairs if {pair.first, pair.second} == {first, last})
    sign = 1 if pair.first == last else -1
    lines = []
    for name, found in pair.regions.items():
        low, high = sorted(sign * end for end in found.ci95)
        if low > 0:
            lines.append(
                f"{name}: {last} is worse than {first}: NRP-error {sign * found.difference:+.3f} "
                f"[{low:+.3f}, {high:+.3f}] {comparison.units}"
            )
    return lines


def _beyond(error: float, bound: float) -> str:
    """With three decimals, or as many as show that it is over the bound."""
    rounded = f"{error:.3f}"
    return rounded if float(rounded) > bound else f"{error:.6g}"
