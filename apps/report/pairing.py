"""Pairs two models' predictions: the test images that both predicted, with one order of images and of classes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from temper.comparing.revisions import Member
from temper.measures.calibration import Labels, Probabilities


@dataclass(frozen=True)
class Pairing:
    """The predictions of two models on the same labelled images.

    Attributes:
        classes: the classes of the new model, then those that only the old model knows.
        known: the classes of the old model in its own order, under their new names.
        image_ids: the images, N of them.
        paths: the paths of the images at the new revision.
        labels: the images' classes at the new revision, as indices into `classes`, (N,).
        old, new: each model's probabilities, (N, classes); 0 for a class that the model does not know.
        only_old: how many test images the old model predicted and the new one did not.
        only_new: rows of the new model's test images that the old model did not predict.
        relabelled: how many images have another class at the new revision.
        renamed: classes that were renamed: old name -> new name.
        added, removed: classes that only the new model or only the old model knows, without renamed ones.
    """

    classes: list[str]
    known: list[str]
    image_ids: list[str]
    paths: list[str]
    labels: Labels
    old: Probabilities
    new: Probabilities
    only_old: int
    only_new: list[int]
    relabelled: int
    renamed: Mapping[str, str]
    added: list[str]
    removed: list[str]

    def guess(self, of: Probabilities, row: int) -> str:
        """The name of the class that a model predicts for an image."""
        return self.classes[int(of[row].argmax())]

    def actual(self, row: int) -> str:
        """The name of an image's class."""
        return self.classes[int(self.labels[row])]


def pair(old: Member, new: Member) -> Pairing:
    """Pairs two models' predictions by image_id; images without a label at the new revision are left out."""
    before = {image_id: row for row, image_id in enumerate(old.test.image_ids)}
    after = {image_id: row for row, image_id in enumerate(new.test.image_ids) if new.test.class_names[row] is not None}
    shared = [image_id for image_id in after if image_id in before]
    rows = [before[image_id] for image_id in shared], [after[image_id] for image_id in shared]
    were = [old.test.class_names[row] for row in rows[0]]
    names = [str(new.test.class_names[row]) for row in rows[1]]
    renamed = _renamed(old.classes, new.classes, were, names)
    known = [renamed.get(name, name) for name in old.classes]
    removed = [name for name in known if name not in new.classes]
    classes = [*new.classes, *removed]
    relabelled = sum(renamed.get(str(was), was) != name for was, name in zip(were, names, strict=True))
    return Pairing(
        classes=classes,
        known=known,
        image_ids=shared,
        paths=[new.test.paths[row] for row in rows[1]],
        labels=_numbers(names, classes),
        old=_arranged(old.test.probabilities[rows[0]], known, classes),
        new=_arranged(new.test.probabilities[rows[1]], new.classes, classes),
        only_old=len(before.keys() - after.keys()),
        only_new=[row for image_id, row in after.items() if image_id not in before],
        relabelled=relabelled,
        renamed=renamed,
        added=[name for name in new.classes if name not in known],
        removed=removed,
    )


def extended(pairing: Pairing, new: Member, rows: Sequence[int], of_old: Probabilities) -> Pairing:
    """A pairing extended by test images of the new revision, which the old model has predicted afterwards.

    Args:
        new: the new model's predictions.
        rows: the rows of these images among the new model's test images.
        of_old: the old model's probabilities for them, (rows, classes of the old model in its own order).
    """
    names = [str(new.test.class_names[row]) for row in rows]
    of_new = _arranged(new.test.probabilities[list(rows)], new.classes, pairing.classes)
    return replace(
        pairing,
        image_ids=[*pairing.image_ids, *(new.test.image_ids[row] for row in rows)],
        paths=[*pairing.paths, *(new.test.paths[row] for row in rows)],
        labels=np.concatenate([pairing.labels, _numbers(names, pairing.classes)]),
        old=np.concatenate([pairing.old, _arranged(of_old, pairing.known, pairing.classes)]),
        new=np.concatenate([pairing.new, of_new]),
    )


def _renamed(
    before: Sequence[str], after: Sequence[str], were: Sequence[str | None], names: Sequence[str]
) -> dict[str, str]:
    """Renamed classes, old name -> new name.

    An old class counts as renamed if all its images now have the same class, and if that class is new and has no other
    images among the shared ones.

    Args:
        before: the classes of the old model.
        after: the classes of the new model.
        were: the class of each shared image at the old revision.
        names: the class of each shared image at the new revision.
    """
    now_of, was_of = defaultdict(set), defaultdict(set)
    for was, name in zip(were, names, strict=True):
        now_of[was].add(name)
        was_of[name].add(was)
    found = {}
    for was in before:
        if was not in after and len(now_of[was]) == 1:
            (name,) = now_of[was]
            if name not in before and was_of[name] == {was}:
                found[was] = name
    return found


def _numbers(names: Sequence[str], classes: Sequence[str]) -> Labels:
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place[name] for name in names], np.int64)


def _arranged(probabilities: Probabilities, known: Sequence[str], classes: Sequence[str]) -> Probabilities:
    """Probabilities with columns in the order of `classes`; 0 for classes that the model does not know.

    Args:
        probabilities: (N, len(known)).
        known: the classes of the model, in the order of the columns.
        classes: the order to return.
    """
    found = np.zeros((len(probabilities), len(classes)), np.float32)
    place = {name: number for number, name in enumerate(classes)}
    if len(probabilities):
        found[:, [place[name] for name in known]] = probabilities
    return found
