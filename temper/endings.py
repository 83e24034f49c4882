"""Which files in a folder or an archive are photos, by the endings of their names."""

from posixpath import splitext

# fmt: off
ENDINGS = {
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".avif", ".ppm", ".pgm",
    ".heic", ".heif",
}
# fmt: on


def is_image(name: str) -> bool:
    """Whether a file is an image by the ending of its name."""
    return splitext(name)[1].lower() in ENDINGS
