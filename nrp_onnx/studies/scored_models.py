"""Scores several models on the same recordings, one after the other: what every study does."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nrp_onnx.errors import ModelError, NrpOnnxError, OptionError
from nrp_onnx.main_job import ScoreOptions, score
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings import Recordings


@dataclass(frozen=True)
class StudiedModel:
    """A model of a study.

    Attributes:
        name: unlike that of any other in the study; its run is in the folder of that name.
        file: gives its ONNX file when its turn comes; the file may be gone afterwards.
        options: how it is scored.
    """

    name: str
    file: Callable[[], AbstractContextManager[Path]]
    options: ScoreOptions


@dataclass(frozen=True)
class ScoredModels:
    """What came of it.

    Attributes:
        results: the content of result.json by the model's name, in the order of the study.
        failed: why a model was not scored, by its name.
    """

    results: dict[str, dict[str, Any]]
    failed: dict[str, str]

    def check(self, where: object) -> None:
        """Say which models failed.

        Raises:
            ModelError: if one did.
        """
        if not self.failed:
            return
        total = len(self.failed) + len(self.results)
        raise ModelError(
            f"{len(self.failed)} of {total} models were not scored: {', '.join(self.failed)}",
            where=where,
            found=next(iter(self.failed.values())),
            fix="Give the same command again when that is mended: finished runs are kept.",
        )


def given_models(files: Sequence[Path], options: ScoreOptions) -> list[StudiedModel]:
    """Models from files, named like them.

    Raises:
        OptionError: if two files have one name.
    """
    names = [path.stem for path in files]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(
                "two models have the same name",
                where="MODELS",
                expected="file names that differ before .onnx",
                found=", ".join(str(path) for path in files if path.stem == name),
            )
    return [
        StudiedModel(path.stem, lambda path=path: nullcontext(path), options)  # type: ignore[misc]
        for path in files
    ]


def score_models(
    models: Sequence[StudiedModel], recordings: Recordings, folder: Path
) -> ScoredModels:
    """Score each model into ``folder/NAME``, where a finished run of the same is taken as it is.

    A model that fails does not keep the others from being scored. A full disk does.
    """
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    notes = Notes()
    with progress_bar(f"Scoring {len(models)} models", len(models)) as advance:
        for number, model in enumerate(models, start=1):
            notes.say(f"scoring {model.name}, {number} of {len(models)}")
            try:
                with model.file() as path:
                    results[model.name] = score(
                        path, recordings, folder / model.name, model.options
                    )
            except NrpOnnxError as error:
                failed[model.name] = str(error)
            except OSError:
                raise
            except Exception as error:  # whatever a framework raises must not lose the other models
                failed[model.name] = f"{type(error).__name__}: {error}"
            if model.name in failed:
                notes.say(f"{model.name} is not scored: {failed[model.name]}")
            advance(1)
    return ScoredModels(results, failed)
