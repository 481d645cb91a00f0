"""What is to be learned: data, the kind of target, how both are scaled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gpunet import datasets, losses
from gpunet.backend import host
from gpunet.errors import ArgumentError, FileError
from gpunet.formula import dtype_kind
from gpunet.losses import Loss

EMBEDDED = ("digits", "breast_cancer", "diabetes")
TASKS = ("classes", "binary", "numbers")


class Problem:
    """Data and what is done with them, as a run keeps it.

    task     "classes": integer labels. "binary": 0 and 1, one logit. "numbers": regression.
    outputs  of the model
    scales   mean and standard deviation of inputs and targets in training, as lists, or None: not scaled
    """

    def __init__(self, task: str, outputs: int, scales: dict[str, Any]):
        if (
            task not in TASKS
            or not isinstance(outputs, int)
            or not isinstance(scales, dict)
            or set(scales) != {"x", "y"}
        ):
            raise ValueError("the problem has another form")  # of a config that was changed
        self.task, self.outputs, self.scales = task, outputs, scales

    @classmethod
    def of(cls, name: str, x: Any, y: Any, task: str) -> Problem:
        """From the training data."""
        xp = host().xp
        task = guess(y) if task == "auto" else task
        scales: dict[str, Any] = {"x": None, "y": None}
        if name not in EMBEDDED:  # those are scaled
            scales["x"] = moments(x)
        if task == "numbers":
            scales["y"] = moments(y.reshape(len(y), -1))
            return cls(task, int(y.reshape(len(y), -1).shape[1]), scales)
        if math.prod(y.shape[1:]) != 1:
            raise ArgumentError(
                f"{name}: labels need shape (n,), but y has {y.shape}. One-hot rows become them by argmax."
            )
        if not bool((y == xp.round(y)).all()) or y.min() < 0:
            raise ArgumentError(f"{name}: labels are whole numbers from 0, but y goes from {y.min()} to {y.max()}.")
        count, classes = len(xp.unique_values(y)), int(y.max()) + 1
        if count < 2 or classes > 10 * count:
            raise ArgumentError(
                f"{name}: y has {count} distinct labels, and the largest is {classes - 1}. Number the classes from 0; "
                "or is it --task numbers?"
            )
        if task == "binary" and y.max() > 1:
            raise ArgumentError(f"{name}: binary targets are 0 and 1, but y goes up to {y.max()}. Use --task classes.")
        return cls(task, 1 if task == "binary" else int(y.max()) + 1, scales)

    def __str__(self) -> str:
        what = {"classes": "classes, one logit each", "binary": "output, a logit of 0 or 1", "numbers": "numbers"}
        return f"task {self.task}: {self.outputs} {what[self.task]}"

    def check(self, name: str, x: Any, y: Any) -> None:
        """Refuse test data that do not fit those of training."""
        if self.scales["x"] is not None and x.shape[1:] != host().xp.asarray(self.scales["x"][0]).shape:
            shape = host().xp.asarray(self.scales["x"][0]).shape
            raise ArgumentError(f"{name}: the model is for inputs {shape}, but the test data have {x.shape[1:]}.")
        width = math.prod(y.shape[1:])
        if width != (self.outputs if self.task == "numbers" else 1):
            raise ArgumentError(f"{name}: the targets of the test data have shape {y.shape}, unlike those of training.")
        if self.task != "numbers" and not bool((y == host().xp.round(y)).all()):
            raise ArgumentError(f"{name}: the labels of the test data are not whole numbers.")
        if self.task != "numbers" and not 0 <= y.min() <= y.max() < max(self.outputs, 2):
            raise ArgumentError(f"{name}: the test data have labels from {y.min()} to {y.max()}, training has fewer.")

    def loss(self) -> Loss:
        """The one that belongs to the task."""
        if self.task == "classes":
            return losses.CrossEntropy()
        return losses.BinaryCrossEntropy() if self.task == "binary" else losses.MeanSquaredError()

    def metrics(self) -> list[str]:
        """Reported besides the loss."""
        return ["mae", "r2"] if self.task == "numbers" else ["accuracy"]

    def inputs(self, x: Any) -> Any:
        """Scaled, float32."""
        xp = host().xp
        if self.scales["x"] is not None:
            mean, deviation = (xp.asarray(part) for part in self.scales["x"])
            if x.shape[1:] != mean.shape:
                raise ArgumentError(f"the model was trained on inputs {mean.shape}, but got {x.shape[1:]}.")
            x = (x - mean) / deviation
        return xp.astype(x, xp.float32)

    def targets(self, y: Any) -> Any:
        """As the loss takes them."""
        xp = host().xp
        if self.task == "classes":
            return xp.astype(y.reshape(-1), xp.int32)
        y = y.reshape(len(y), -1)
        if self.scales["y"] is not None:
            mean, deviation = (xp.asarray(part) for part in self.scales["y"])
            y = (y - mean) / deviation
        return xp.astype(y, xp.float32)

    def predictions(self, outputs: Any) -> dict[str, Any]:
        """{"prediction": labels or numbers, "probability": of the classes, or of the positive one}"""
        xp = host().xp
        if self.task == "numbers":
            mean, deviation = (xp.asarray(part) for part in self.scales["y"])
            return {"prediction": outputs * deviation + mean}
        from gpunet import layers

        activation = self.loss().activation
        assert activation is not None  # both losses for classes have one
        probability = host().fuse(getattr(layers, activation)().formula)(outputs)
        if self.task == "binary":
            return {"prediction": xp.astype(outputs[:, 0] > 0, xp.int32), "probability": probability[:, 0]}
        return {"prediction": xp.astype(xp.argmax(outputs, axis=-1), xp.int32), "probability": probability}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"task": self.task, "outputs": self.outputs, "scales": self.scales}


def guess(y: Any) -> str:
    """The task, by the targets' type: floats are numbers, two labels are binary."""
    kind = dtype_kind(y.dtype)
    if kind == "float":
        return "numbers"
    return "binary" if kind == "bool" or (y.min() >= 0 and y.max() == 1) else "classes"


def moments(x: Any) -> list[Any]:
    """[mean, standard deviation] of the features, as lists; a feature that is constant has deviation 1."""
    xp = host().xp
    x = xp.astype(x, xp.float64)
    deviation = xp.std(x, axis=0)
    return [xp.mean(x, axis=0).tolist(), xp.where(deviation > 0, deviation, 1.0).tolist()]


def load(name: str) -> tuple[str | None, tuple[Any, Any], tuple[Any, Any] | None]:
    """(task, (x, y), (x_test, y_test)) of an embedded data set or an .npz file; None for what is not known.

    Raises
        FileError: there is no such file, or no arrays x and y of one length in it.
    """
    if name in EMBEDDED:
        train, test = getattr(datasets, name)()
        return {"digits": "classes", "breast_cancer": "binary", "diabetes": "numbers"}[name], train, test
    arrays = read(name, ("x", "y"))
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise FileError(f"{name} has one of x_test and y_test. Give both, or none: then a fifth is held out.")
    test = (arrays["x_test"], arrays["y_test"]) if {"x_test", "y_test"} <= set(arrays) else None
    for x, y in [(arrays["x"], arrays["y"]), *([test] if test else [])]:
        check(name, x, y)
    return None, (arrays["x"], arrays["y"]), test


def read(name: str, needed: tuple[str, ...]) -> dict[str, Any]:
    """Arrays of an .npz file, or x of an .npy file."""
    path = Path(name)
    known = f"Use one of {', '.join(EMBEDDED)}, or an .npz file with arrays x and y."
    if not path.is_file():
        raise FileError(f"there is no data set or file '{Path(name).name if path.is_absolute() else name}'. {known}")
    if path.suffix not in (".npz", ".npy"):
        raise FileError(f"{path.name} is no .npz file. Make one of your arrays: numpy.savez('data.npz', x=x, y=y).")
    try:
        loaded = host().load(path)
        arrays = {key or "x": host().asarray(array) for key, array in loaded.items()}
    except Exception as error:  # a damaged zip file raises many types
        why = (
            "it holds Python objects, no numbers"
            if "pickle" in str(error)
            else str(error).partition("\n")[0] or repr(error)
        )
        raise FileError(f"{name} cannot be read: {why}. {known}") from error
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise FileError(f"{name}: {key} has no numbers, but {array.dtype}. Turn words into whole numbers from 0.")
    for key in needed:
        if key not in arrays:
            raise FileError(f"{name} has no array '{key}', but {', '.join(arrays) or 'none'}. {known}")
    return arrays


def check(name: str, x: Any, y: Any) -> None:
    """Refuse arrays that cannot be trained on."""
    if x.shape[:1] != y.shape[:1] or x.ndim < 2 or len(x) < 2:
        raise FileError(f"{name}: x needs shape (n, …) and y n targets, n at least 2, but got {x.shape} and {y.shape}.")
    for key, array in (("x", x), ("y", y)):
        if not bool(host().xp.isfinite(array).all()):
            raise FileError(f"{name}: {key} has numbers that are not finite. Leave those samples out.")
