"""Loss: what training minimises."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gpunet.backend import Array, Backend, Fused, Shape, host, of
from gpunet.errors import ArrayError, ShapeError
from gpunet.formula import dtype_kind, dtype_name
from gpunet.formula.shapes import arithmetic


@dataclass(eq=False, kw_only=True)
class Loss:
    """One formula (prediction, target, weight) -> (total, gradient), the mean over the batch and its derivative.

    weight is the 0-d operand 1/n, n the number of terms in the mean; with a weight for each sample it is (…, 1).
    """

    activation: ClassVar[str | None] = None
    """Of gpunet.layers: what turns logits into predictions, where the loss takes logits."""

    bound: _Bound = field(init=False, repr=False, default=None)  # type: ignore[assignment]  # by ``bind``
    _known: dict[int, _Bound] = field(init=False, repr=False, default_factory=dict)

    def __copy__(self) -> Loss:
        """Without what was made for the original's settings."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, bound=None, _known={})
        return twin

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array, *more: Array) -> tuple[Array, Array]:
        """(total of weighted terms, gradient). The weight is applied inside: a total cannot be used further."""
        raise NotImplementedError(f"{type(self).__name__} does not define formula")

    def operands(self, shape: Shape, dtype: Any) -> tuple[Array, ...]:
        """What the formula is given after the weight, for predictions of this shape and type."""
        return ()

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

    def count(self, operand: Array, shape: Shape, dtype: Any) -> int | Array:
        """What the mean divides by, for a prepared target and predictions of this shape and type: an int or 0-d."""
        return self.terms(shape)

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

    def counted(self, target: Any) -> Any:
        """Which labels count, as truth values of the labels' shape; None: all."""
        return None

    def random_target(self, shape: Shape, seed: int) -> Any:
        """A host target for predictions of this shape, batch included; for gradient checks."""
        return host().normal(seed, "target", shape)

    def check_outputs(self, shape: Shape) -> None:
        """Refuse a model whose samples have this output, if the settings do not fit."""

    def share(self, target: Any) -> float:
        """How much a batch counts in a mean over batches: what its own mean divides by, up to a factor."""
        return float(len(target))

    def bind(self, backend: Backend) -> Loss:
        """Fix the backend; unbound, it is that of the prediction."""
        if self.bound is None or self.bound.backend is not backend:
            if id(backend) not in self._known:
                self._known[id(backend)] = _Bound(backend, backend.fuse(self.formula))
            self.bound = self._known[id(backend)]  # kept: a recorded step may read its constants
        return self

    def __call__(
        self,
        prediction: Array,
        target: Array,
        *,
        sample_weight: Array | None = None,
        terms: int | Array | None = None,
        scale: Array | None = None,
    ) -> tuple[Array, Array]:
        """-> (0-d value, gradient with respect to the prediction).

        sample_weight  factors of the terms, one a sample, or one for each of more leading axes; the mean's n stays
        terms          the mean's n, if it is not that of this target
        scale          a 0-d factor of both, or None

        Raises
            ShapeError: target, weights and prediction do not fit.
            ArrayError: an array of another backend, or a target of the wrong type.
        """
        if self.bound is None or not self.bound.backend.owns(prediction):
            self.bind(of(prediction))
        bound, backend = self.bound, self.bound.backend
        for array, what in ((target, "targets"), (sample_weight, "sample_weight")):
            if array is not None and not backend.owns(array):
                raise ArrayError(
                    f"{type(self).__name__} takes {what} on {backend.name}, but got a {type(array).__module__}."
                    f"{type(array).__name__}. Use model.backend.asarray(y); TrainStep and fit do it for you."
                )
        operand = self.prepare(target, backend)
        self.check_operand(prediction, operand)
        shape, dtype = tuple(prediction.shape), prediction.dtype
        n = self.count(operand, shape, dtype) if terms is None else terms
        factors = [bound.constant(1 / max(n, 1), dtype) if isinstance(n, int) else bound.fused(inverse)(n)]
        if scale is not None:
            factors.append(scale)
        if sample_weight is not None:
            weights = backend.asarray(sample_weight, arithmetic(dtype_name(dtype)))
            factors.append(spread(weights, shape, backend))
        weight = factors[0] if len(factors) == 1 else bound.fused(product)(*factors)
        value, gradient = bound.formula(prediction, operand, weight, *self.operands(shape, dtype))
        return value, gradient

    def check_operand(self, prediction: Array, operand: Array) -> None:
        """Refuse a prepared target whose shape does not fit the prediction."""
        if prediction.shape != operand.shape:
            raise self.mismatch(tuple(prediction.shape), tuple(operand.shape))


class _Bound:
    """A loss on a backend: its formula, others that it needs, and operands that stay the same."""

    def __init__(self, backend: Backend, formula: Fused):
        self.backend, self.formula = backend, formula
        self._fused: dict[Any, Fused] = {}
        self._constants: dict[Any, Array] = {}

    def fused(self, formula: Any) -> Fused:
        """A formula on the backend, prepared once."""
        if formula not in self._fused:
            self._fused[formula] = self.backend.fuse(formula)
        return self._fused[formula]

    def constant(self, value: Any, dtype: Any) -> Array:
        """A number, 0-d, or a tuple of them, 1-d, to be computed with beside predictions of this type; made once."""
        if (value, dtype) not in self._constants:
            self._constants[value, dtype] = self.backend.asarray(value, arithmetic(dtype_name(dtype)))
        return self._constants[value, dtype]


def check_sample_weight(leading: Shape, shape: Shape) -> None:
    """Raises ShapeError unless weights of this shape are one a sample, or a row, of predictions of that shape."""
    if not 0 < len(leading) < max(len(shape), 2) or leading != shape[: len(leading)]:
        raise ShapeError(
            f"sample_weight has one number a sample, but got {leading} for predictions {shape}. "
            f"Reshape it to {shape[:1]}{f' or {shape[:-1]}' if len(shape) > 2 else ''}."
        )


def spread(weight: Array, shape: Shape, backend: Backend) -> Array:
    """Weights (n,), or of more leading axes, as an operand (…, 1) of predictions of this shape; (n,) of (n,)."""
    leading = tuple(weight.shape)
    check_sample_weight(leading, shape)
    weight = backend.xp.reshape(weight, (*leading, *(1 for _ in shape[len(leading) :])))  # (n, 1, …)
    if len(leading) < len(shape) - 1:
        rows = backend.empty((*shape[:-1], 1), dtype_name(weight.dtype))
        rows[...] = weight  # every row has the weight of its sample
        return rows
    return weight


def inverse(xp: Any, n: Array) -> Array:
    """1 / n; 0 where nothing counts, so that the loss of nothing is 0"""
    return xp.where(n > 0, 1 / n, 0.0)


def product(xp: Any, first: Array, *others: Array) -> Array:
    """All factors"""
    for factor in others:
        first = first * factor
    return first
