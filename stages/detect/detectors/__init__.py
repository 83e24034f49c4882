"""A module for each detector, named as in params.yaml; it has the detector's `Settings` and `find_boxes`."""
