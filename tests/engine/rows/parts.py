"""A backend of three shards, whose executor stands for other processes."""

import pickle

import numpy as np

from sklmm.engine.rows.local import LocalRows
from sklmm.engine.rows.parted import Each, InProcess, PartedRows


class Pickled(InProcess):
    """Arguments and answers are pickled on their way; what is kept is not."""

    def told(self, function, *arguments):
        answers = super().told(*sent((function, *arguments)))
        return pickle.loads(pickle.dumps(answers))

    def kept(self, function, *arguments):
        function, *arguments = sent((function, *arguments))
        return Each(InProcess.told(self, function, *arguments))


def sent(call):
    return [one if isinstance(one, Each) else pickle.loads(pickle.dumps(one)) for one in call]


def parts(*arrays):
    """`PartedRows` of arrays, as `LocalRows` takes them, in three parts of different lengths."""
    whole = LocalRows(*arrays)
    places = np.split(np.arange(whole.n_rows), [whole.n_rows // 3, whole.n_rows // 2])
    shapes = [(J, z.shape[1]) for J, z in zip(whole.levels, whole.z, strict=True)]
    return PartedRows.of(Pickled(), Each(map(whole.take, places)), whole.p, shapes)
