"""Recognizes the names of splits in published datasets: `training_set`, `Train Images`, `val`, `seg_test`, `test1`, ...

`fetch` uses this to tell split folders from class folders, `normalize` to find the split that a published name means.
Both print what they understood, and the setting `normalize.splits` overrules it.

A name is read word by word; case, digits, `-`, `_`, spaces and camelCase do not matter. It means a split if it contains
a split word (`train`), if that is followed only by words that say nothing about the content (`_set`, `_images`), and if
all split words in it agree. Anything may stand before the split word, since many datasets put their own name there
(`seg_train`, `asl_alphabet_test`). So `test_tube` and `train station` are not splits. `steam_train` would be one by its
name alone, which is why `stages.fetch` compares the part before the split word (`prefix`) across neighbouring folders.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

# `eval` and `holdout` are used for both validation and test. Here they mean test, because that mistake costs less: a
# validation set taken for test is only measured on, but a test set taken for validation would choose the model, and
# every figure reported on it would be too good. Food-11 uses `evaluation` for test (training, validation, evaluation).
# Photos "to predict" (Intel's seg_pred, which is unlabelled) are those on which a competition tests.
_SPLIT_WORDS = {
    "train": ["train", "training", "trn", "trainval"],
    "validation": ["val", "valid", "validate", "validating", "validation", "dev"],
    "test": [
        *("test", "tests", "testing", "tst"),
        *("eval", "evaluate", "evaluation", "holdout"),
        *("pred", "predict", "prediction", "predictions"),
    ],
}
_MEANING = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
_CONTAINERS = {
    *("set", "sets", "data", "dataset", "datasets", "subset", "split", "splits", "part", "partition", "batch"),
    *("image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos"),
    *("file", "files", "folder", "folders", "dir", "directory", "sample", "samples", "example", "examples"),
    *("jpg", "jpeg", "png"),
}
_QUALIFIERS = {
    *("copy", "new", "final", "full", "small", "raw", "original", "resized", "cropped", "clean", "cleaned"),
    *("augmented", "aug", "labeled", "labelled", "unlabeled", "unlabelled", "public", "private", "of", "the", "my"),
}
_FILLERS = _CONTAINERS | _QUALIFIERS
_NEGATIONS = {"no", "non", "not", "pre", "post"}  # with one of these a name is a class: `not_valid` beside `valid`
_LONGEST_WORD = 40  # letters; a longer `datasetdataset...` splits in so many ways that matching would never end
_LONGEST_FIRST = sorted(_MEANING, key=len, reverse=True)
_GLUED = re.compile(rf"(?:{'|'.join(_CONTAINERS)})*(?P<word>{'|'.join(_LONGEST_FIRST)})(?:{'|'.join(_FILLERS)})*")


class _Reading(NamedTuple):
    meaning: str | None
    prefix: str


def meaning(name: str) -> str | None:
    """The split that a published name means: "train", "validation" or "test"; `None` if it means none."""
    return _read(name).meaning


def prefix(name: str) -> str:
    """The part before the split word, without fillers such as `images`: `seg` in `seg_train`, "" in `my_train`."""
    return _read(name).prefix


def says_nothing(name: str) -> bool:
    """Whether a folder's name only says that it holds files: `images`, `data`, `img_files`, `dataset (1)`."""
    words = _words(name)
    return bool(words) and all(word in _CONTAINERS for word in words)


@lru_cache(2**16)
def _read(name: str) -> _Reading:
    words = _words(name)
    glued = [_GLUED.fullmatch(word) if len(word) <= _LONGEST_WORD else None for word in words]
    places = [place for place, found in enumerate(glued) if found]
    if not places:
        return _Reading(None, "")
    before, after = words[: places[0]], words[places[0] :]
    plain = all(glued[places[0] + n] or word in _FILLERS or len(word) == 1 for n, word in enumerate(after))
    if not plain or _NEGATIONS & set(before):
        return _Reading(None, "")
    meanings = list(dict.fromkeys(_MEANING[found["word"]] for found in glued if found))
    if len(meanings) > 1 and meanings != ["train", "validation"]:  # `train_val` is train; validation is drawn from it
        return _Reading(None, "")
    return _Reading(meanings[0], " ".join(word for word in before if word not in _FILLERS))


def _words(name: str) -> list[str]:
    """The words of a name in lower case, without digits, sizes (256x256) and times (20221106T023808Z)."""
    name = unicodedata.normalize("NFKC", name)
    name = re.sub(r"\d+[tTxX]\d+[zZ]?", " ", name)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    name = re.sub(r"(?i)hold[\W_]+out", "holdout", name)
    return [word.casefold() for word in re.findall(r"[^\W\d_]+", name)]
