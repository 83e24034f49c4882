"""How good a model is: metrics, their intervals, calibration."""
