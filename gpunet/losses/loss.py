"""Loss: what training minimises."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array, Backend, Fused, Shape, host, of
from gpunet.errors import ArrayError, ShapeError
from gpunet.formula import dtype_kind, dtype_name
from gpunet.formula.shapes import arithmetic


@dataclass(eq=False, kw_only=True)
class Loss:
    """One formula (prediction, target, weight) -> (total, gradient), the mean over the batch and its derivative.

    weight is the 0-d operand 1/n, n the number of terms in the mean.
    """

    _backend: Backend | None = field(init=False, repr=False, default=None)
    _fused: Fused | None = field(init=False, repr=False, default=None)
    _scaled: Fused = field(init=False, repr=False)
    _weights: dict[tuple[int, Any], Array] = field(init=False, repr=False, default_factory=dict)

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """(total of weighted terms, gradient). The weight is applied inside: a total cannot be used further."""
        raise NotImplementedError(f"{type(self).__name__} does not define formula")

    def prepare(self, target: Any, backend: Backend) -> Array:
        """A target from the host or of the backend, as the formula's operand."""
        return backend.asarray(target)

    def convert(self, target: Any, backend: Backend, dtype: str) -> Array:
        """A target from the host or of the backend, on the backend; floats in the prediction's type."""
        if not backend.owns(target):
            target = host().asarray(target)
        return backend.asarray(target, dtype) if dtype_kind(target.dtype) == "float" else backend.asarray(target)

    def terms(self, shape: Shape) -> int:
        """Number of terms in the mean for predictions of this shape."""
        return math.prod(shape)

    def check_targets(self, target: Any, shape: Shape) -> None:
        """Refuse host targets that do not fit predictions of samples of this shape. Costs a pass over the data."""
        if tuple(target.shape[1:]) != shape:
            raise self.mismatch((len(target), *shape), tuple(target.shape))

    def mismatch(self, prediction: Shape, target: Shape) -> ShapeError:
        """The error for a target that does not fit."""
        return ShapeError(
            f"{type(self).__name__} needs predictions and targets of one shape, but got {prediction} and {target}. "
            f"Reshape the target to {prediction}; broadcasting would compare every sample with every other."
        )

    def labels(self, prediction: Any, xp: Any) -> Any:
        """Class labels decided by predictions, (n,) or (n, k); None where there are no classes."""
        return None

    def truth(self, target: Any, xp: Any) -> Any:
        """The class labels that a target stands for, to be compared with ``labels``."""
        return target

    def random_target(self, shape: Shape, seed: int) -> Any:
        """A host target for predictions of this shape, batch included; for gradient checks."""
        return host().normal(seed, "target", shape)

    def bind(self, backend: Backend) -> Loss:
        """Fix the backend; unbound, it is that of the prediction."""
        if self._backend is not backend:
            self._backend, self._fused, self._weights = backend, backend.fuse(self.formula), {}
            self._scaled = backend.fuse(_times)
        return self

    def __call__(
        self, prediction: Array, target: Array, *, terms: int | None = None, scale: Array | None = None
    ) -> tuple[Array, Array]:
        """-> (0-d value, gradient with respect to the prediction). ``terms`` overrides the mean's n.

        scale  a 0-d factor of both, or None

        Raises
            ShapeError: target and prediction do not fit.
            ArrayError: an array of another backend, or a target of the wrong type.
        """
        if self._backend is None or not self._backend.owns(prediction):
            self.bind(of(prediction))
        backend, fused = self._backend, self._fused
        assert backend is not None and fused is not None  # bound above
        if not backend.owns(target):
            raise ArrayError(
                f"{type(self).__name__} takes targets on {backend.name}, but got a {type(target).__module__}."
                f"{type(target).__name__}. Use model.backend.asarray(y); TrainStep and fit do it for you."
            )
        operand = self.prepare(target, backend)
        self.check_operand(prediction, operand)
        weight = self._weight(prediction, terms, backend)
        if scale is not None:
            weight = self._scaled(weight, scale)
        value, gradient = fused(prediction, operand, weight)
        return value, gradient

    def check_operand(self, prediction: Array, operand: Array) -> None:
        """Refuse a prepared target whose shape does not fit the prediction."""
        if prediction.shape != operand.shape:
            raise self.mismatch(tuple(prediction.shape), tuple(operand.shape))

    def _weight(self, prediction: Array, terms: int | None, backend: Backend) -> Array:
        n = self.terms(tuple(prediction.shape)) if terms is None else terms
        key = (n, prediction.dtype)
        if key not in self._weights:
            self._weights[key] = backend.scalar(1 / max(n, 1), arithmetic(dtype_name(prediction.dtype)))
        return self._weights[key]


def _times(xp: Any, weight: Array, scale: Array) -> Array:
    return weight * scale
