"""How good a model is: metrics, their confidence intervals, calibration."""
