"""Layer: the base of all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

from gpunet.backend import Array, Backend, Shape
from gpunet.chain import Chain
from gpunet.context import Context
from gpunet.errors import ArgumentError, NotBuiltError, ShapeError
from gpunet.formula.shapes import arithmetic
from gpunet.parameter import Initializer, Parameter, State

Saved: TypeAlias = Any
"""Opaque: one forward's saved serves one backward."""


@dataclass(eq=False, kw_only=True, repr=False)
class Layer:
    """A function with parameters and its derivative.

    A layer defines either ``forward`` and ``backward``, or ``parts``: smaller layers that run one after another.
    What ``forward`` returns as ``saved`` is all that ``backward`` needs; nothing is hidden on the layer, so a layer may
    be used twice in a step. Shapes are those of one sample, without the batch axis.
    """

    name: str | None = None

    fresh_output: ClassVar[bool] = False
    """y is new memory that ``saved`` does not hold: a group behind this layer may write in place."""
    fresh_input_grad: ClassVar[bool] = False
    """dx is new memory: a group before this layer may write in place."""
    capturable: ClassVar[bool] = True
    """All that differs between steps is on the device. A layer that computes with numbers of the host says False."""

    backend: Backend = field(init=False)
    dtype: str = field(init=False)
    prefix: str = field(init=False, default="")
    built: tuple[Shape, Shape] | None = field(init=False, default=None)
    _declared: list[Parameter] = field(init=False, default_factory=list)
    _states: list[State] = field(init=False, default_factory=list)
    _chain: Chain | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_name(self.name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Unbuilt layers can be copied and pickled."""
        if self.built is not None:
            raise ArgumentError(
                f"{self.title} is built, and its parameters are views that a copy would cut off. Build a new model and "
                "call its set_weights(model.get_weights())."
            )
        return super().__reduce_ex__(protocol)

    def setup(self, shape: Shape) -> Shape:
        """Author's hook: declare Parameters, return the output's shape."""
        return shape

    def parameter(self, name: str, shape: Shape, init: Initializer) -> Parameter:
        """Declare a Parameter; in ``setup`` only."""
        p = Parameter(self.prefix + name, shape, init)
        if any(other.name == p.name for other in self._declared):
            raise ArgumentError(f"{self.title} declares a parameter '{name}' twice. Rename one.")
        self._declared.append(p)
        return p

    def state(self, name: str, shape: Shape, init: Initializer) -> State:
        """Declare a State, float32 or float64, with its initial value; in ``setup`` only."""
        value = self.backend.zeros(shape, arithmetic(self.dtype))
        value[...] = self.backend.asarray(init(0, self.prefix + name, shape), arithmetic(self.dtype))
        self._states.append(State(self.prefix + name, value))
        return self._states[-1]

    def attach(self, shape: Shape, backend: Backend, dtype: str, prefix: str = "") -> Shape:
        """Bind to a backend and set up, once; a second use in the model must have the same shape.

        Raises
            ShapeError: the layer was built for another shape, or cannot take this one.
        """
        if self.built is not None:
            if self.built[0] != shape or self.backend is not backend or self.dtype != dtype:
                raise ShapeError(
                    f"{self.title} was built for inputs of shape {batched(self.built[0])} on {self.backend.name} in "
                    f"{self.dtype} but is used again for {batched(shape)} on {backend.name} in {dtype}. "
                    "Make a second layer."
                )
            return self.built[1]
        self.bind(backend, dtype)
        self.prefix, self._declared, self._states = prefix, [], []
        output = self.setup(shape)
        self.built = (shape, output)
        return output

    def bind(self, backend: Backend, dtype: str) -> None:
        """Say where the layer lives; enough for parts that get their Parameters from their owner."""
        self.backend, self.dtype = backend, dtype

    def detach(self) -> None:
        """Forget a build that failed."""
        self.built, self._chain, self._declared, self._states = None, None, [], []
        for layer in self.sublayers():
            layer.detach()

    def sublayers(self) -> Sequence[Layer]:
        """The layers that this one was made of."""
        return ()

    def parts(self) -> list[Layer]:
        """What runs instead of this layer; itself by default."""
        return [self]

    def parameters(self) -> list[Parameter]:
        """In declaration order, with repeats where shared."""
        return self._declared

    def states(self) -> list[State]:
        """Of this layer and those inside."""
        return [*self._states, *(state for layer in self.sublayers() for state in layer.states())]

    def indices(self) -> int | None:
        """How many there are, for a layer that takes indices instead of numbers."""
        return None

    def trainable(self) -> bool:
        """Does any parameter get a gradient?"""
        return any(p.trainable for p in self.parameters())

    def chain(self) -> Chain:
        """The layer's parts, one after another."""
        if self._chain is None:
            parts = self.parts()
            if parts == [self]:
                raise NotImplementedError(f"{type(self).__name__} defines neither forward and backward, nor parts")
            for part in parts:
                part.bind(self.backend, self.dtype)
            self._chain = Chain(parts, self.backend)
        return self._chain

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """-> y, saved."""
        require_built(self)
        return self.chain().forward(x, ctx)

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """-> dx, or None if not ``ctx.needs_input_grad``. Parameters get their gradients; dy is not modified."""
        return self.chain().backward(dy, saved, ctx)

    @property
    def title(self) -> str:
        """For messages: the class, and the layer's own name or its path in the model."""
        label = self.name or self.prefix.rstrip(".")
        return f"{type(self).__name__} '{label}'" if label else type(self).__name__

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    def __repr__(self) -> str:
        made_with = [(f, getattr(self, f.name)) for f in fields(self) if f.init]
        positional = [repr(value) for f, value in made_with if not f.kw_only]
        changed = [f"{f.name}={value!r}" for f, value in made_with if f.kw_only and value != f.default]
        return f"{type(self).__name__}({', '.join(positional + changed)})"


def batched(shape: Shape) -> str:
    """A sample's shape as messages show it: (…, 784)."""
    return f"(…, {', '.join(map(str, shape))})" if shape else "(…,)"


def check_name(name: str | None) -> None:
    """Refuse a layer name that could not stand in a path.

    Raises
        ArgumentError: the name is empty, a number, or holds a dot or a wildcard.
    """
    if name is not None and (not name or name.isdigit() or set(name) & set(".*?[]/")):
        raise ArgumentError(
            f"a layer's name is a word without '.', '*', '?', '[', ']' or '/', but got '{name}'. Rename it."
        )


def require_built(layer: Layer) -> None:
    """Raises NotBuiltError before a build."""
    if layer.built is None:
        raise NotBuiltError(
            f"{layer.title} has no parameters yet. Call model.build(shape) with the shape of one sample first."
        )


def everything(layer: Layer) -> list[Layer]:
    """A layer and all layers inside."""
    return [layer, *(inner for part in layer.sublayers() for inner in everything(part))]
