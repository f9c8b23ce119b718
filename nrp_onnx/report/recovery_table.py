"""The recovery study as tables for a terminal: confusion matrices, and what each predictor removes."""

from typing import Any

from rich.table import Table

_NAMES = {"nrp": "NRP head", "ridge": "ridge", "pls": "PLS-25"}


def recovery_lines(result: dict[str, Any]) -> list[str]:
    """The findings in words: who is found, and by how much the NRP head errs less than ridge."""
    total, paired = result["n_populations"], result["at_source"]["nrp_less_ridge"]
    low, high = paired["ci95"]
    return [
        *(
            f"{_NAMES[name]}: the true source ranks first at {right} of {total} populations"
            for name, right in result["first"].items()
        ),
        f"At the true source, NRP head less ridge: {paired['difference']:+.4f} z, 95 % {low:+.4f} to "
        f"{high:+.4f}; less error at {paired['wins']} of {paired['n_sites']} sites (SIMULATED)",
    ]


def confusion_table(result: dict[str, Any], predictor: str) -> Table:
    """How often each candidate (column) ranks first for sites of a source (row)."""
    names = result["candidates"]
    table = Table(title=f"{_NAMES[predictor]}  SIMULATED")
    table.add_column("source")
    for place in range(len(names)):
        table.add_column(str(place + 1), justify="right")
    for place, (name, row) in enumerate(zip(names, result["confusion"][predictor], strict=True)):
        cells = [str(count) if count else "." for count in row]
        cells[place] = f"[bold]{cells[place]}[/bold]"
        table.add_row(f"{place + 1} {name}", *cells)
    return table


def removed_table(result: dict[str, Any]) -> Table:
    """The share of the explainable error that each predictor removes at the true source."""
    found = result["at_source"]
    table = Table(title="SIMULATED")
    table.add_column("predictor")
    table.add_column("explainable error removed", justify="right")
    for name, share in found["explainable_removed"].items():
        table.add_row(_NAMES[name], f"{share:.1%}")
    return table
