"""The images that heads train on and are judged by, on the device where they train."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingData:
    """Inputs and targets of the two sets of images.

    Attributes:
        fit_inputs: float32 (n_fit, features) for each candidate layer.
        fit_targets: float32 (n_fit, n_sites), 0 where there is none.
        fit_there: float32 (n_fit, n_sites), 1 where there is a target, else 0.
        validation_inputs: as ``fit_inputs``; empty tensors where nothing validates.
        validation_targets: float32 (n_validation, n_sites), NaN = missing.
        regions: places of the sites of each region.
    """

    fit_inputs: list[Tensor]
    fit_targets: Tensor
    fit_there: Tensor
    validation_inputs: list[Tensor]
    validation_targets: Tensor
    regions: list[Tensor]

    @classmethod
    def of(
        cls,
        inputs: Sequence[Tensor],
        targets: Tensor,
        fit: Tensor,
        validation: Tensor | None,
        regions: Sequence[Tensor],
        device: str,
    ) -> "TrainingData":
        """Take the two sets of images out of all; the arguments are those of `train_heads`."""
        if validation is None:
            validation = fit[:0]
        recorded = targets[fit]
        return cls(
            [x[fit].to(device) for x in inputs],
            torch.nan_to_num(recorded).to(device),
            (~torch.isnan(recorded)).float().to(device),
            [x[validation].to(device) for x in inputs],
            targets[validation].to(device),
            [sites.to(device) for sites in regions],
        )

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.fit_targets.device

    @property
    def validates(self) -> bool:
        """Whether there are validation images."""
        return len(self.validation_targets) > 0

    def validation_mae(self, rates: Tensor) -> Tensor:
        """Mean over regions of the MAE of some heads, (C,), from their rates (C, n_validation, sites).

        A region without a recorded rate among the validation images is left out.
        """
        error = (rates - self.validation_targets).abs_()
        there = ~torch.isnan(self.validation_targets)
        sums, counts = torch.where(there, error, 0.0).sum(dim=1), there.sum(dim=0)
        maes = [sums[:, sites].sum(dim=1) / counts[sites].sum() for sites in self.regions]
        known = [bool(counts[sites].any()) for sites in self.regions]
        return torch.stack(
            [mae for mae, is_known in zip(maes, known, strict=True) if is_known]
        ).mean(dim=0)
