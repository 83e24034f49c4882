"""Decides where a long table is cut into files, so that adding a few images changes only a few files.

This is content-defined chunking, as in LBFS (Muthitacharoen et al., SOSP 2001): the images themselves decide where a
file ends. If files had a fixed number of images, an added image would shift every later cut and so change every later
file.
"""

# The average size of a file. With smaller files, more of them stay unchanged when new images are scattered over the
# table. But each file costs DVC about 0.07 ms at every check, and each raw part 1 ms whenever its metadata are read.
FILE_BYTES = 16 * 2**20


def ends_file(image_id: str, added: int, length: int, average: int) -> bool:
    """Whether a file ends after this image.

    A file has at least a quarter of `average` bytes and ends as soon as it has four times `average`. Images are never
    divided, so it may be longer by part of an image; the last file of a table may be smaller.

    Args:
        image_id: hex digits of the image's own checksum, at least 8, which decide.
        added: the bytes of the image.
        length: the bytes of the file so far, including this image.
        average: the average size of a file in bytes.
    """
    if length < average // 4:
        return False
    number = int(image_id[:8], 16) / 2**32  # uniform in [0, 1)
    return length >= 4 * average or number < added / average
