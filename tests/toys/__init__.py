"""What tests and benchmarks share: toy photos, published layouts, servers, detectors, and copies of this repository."""
