"""The neural response predictor: heads, their search and training, and the linear baselines."""
