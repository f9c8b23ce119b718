"""The commands `study ...`: experiments, each a loop over scores."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nrp_onnx.cli_study_paper import (
    layers_command,
    pruning_command,
    sizes_command,
    table1_command,
)
from nrp_onnx.cli_study_robustness import robustness_command

study_app = typer.Typer(help="Experiments, each a loop over scores.", no_args_is_help=True)
study_app.command("table1")(table1_command)
study_app.command("layers")(layers_command)
study_app.command("sizes")(sizes_command)
study_app.command("pruning")(pruning_command)
study_app.command("robustness")(robustness_command)


@study_app.command("recovery")
def recovery_command(
    models: Annotated[list[Path], typer.Argument(help="ONNX backbones.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the study.")],
    recordings: Annotated[
        str | None,
        typer.Option(help="Whose stimuli are shown, as in `score`. [default: simulated]"),
    ] = None,
    layers: Annotated[str, typer.Option(help="auto, or names with commas.")] = "auto",
    reduce: Annotated[str, typer.Option(help="As in `score`.")] = "auto",
    preprocess: Annotated[str | None, typer.Option(help="As in `score`.")] = None,
    populations: Annotated[int, typer.Option(min=1, help="Simulated populations.")] = 10,
    sites: Annotated[int, typer.Option(min=2, help="Sites of a population.")] = 60,
    search: Annotated[str, typer.Option(help="As in `score`.")] = "default",
    seed: Annotated[int, typer.Option(help="Of sites, trials, split and weights.")] = 0,
    device: Annotated[str, typer.Option(help="As in `score`.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Simulate sites that read a known layer, and see whether the score finds it.

    Example: nrp-onnx study recovery a.onnx b.onnx --recordings simulated:960 -o recovery
    """
    from nrp_onnx.report.recovery_table import confusion_table, recovery_lines, removed_table
    from nrp_onnx.report.table import print_table
    from nrp_onnx.studies.recovery import RecoveryOptions, study_recovery

    options = RecoveryOptions(
        layers=layers,
        reduce=reduce,
        preprocess=preprocess,
        populations=populations,
        sites=sites,
        search=search,
        seed=seed,
        device=device,
    )
    result = study_recovery(models, recordings, out, options)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for predictor in result["first"]:
        print_table(confusion_table(result, predictor))
    print_table(removed_table(result))
    print("\n".join(recovery_lines(result)))
    print(f"Files: {out}")
