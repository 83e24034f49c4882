"""Exported models over HTTP, with a page for people: `python -m apps.serve --models models/export/*.tflite`."""
