"""Where a long table is cut into files, so that adding a few images changes a few files.

Content-defined chunking, as in LBFS (Muthitacharoen et al., SOSP 2001): the images themselves choose where a file ends.
A cut after every so many images would move with each image that is added before it, and every file after it would be
another.
"""

# Of one file, on average. Smaller files leave more of them as they are when new images are scattered over the table;
# but each file costs DVC some 0.07 ms whenever it looks, and each raw part 1 ms whenever its metadata are read.
FILE_BYTES = 16 * 2**20


def ends_file(image_id: str, added: int, length: int, average: int) -> bool:
    """Whether a file ends with an image.

    A file has a quarter of `average` bytes at least and four times as much at most; but no image is divided, and the
    last file of a table may be smaller.

    Args:
        image_id: hex digits of the image's own checksum, at least 8, by which it decides.
        added: its bytes.
        length: the bytes of the file, these included.
    """
    if length < average // 4:
        return False
    number = int(image_id[:8], 16) / 2**32  # uniform in [0, 1)
    return length >= 4 * average or number < added / average
