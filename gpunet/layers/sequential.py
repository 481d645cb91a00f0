"""Sequential: layers one after another, and the model built from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from gpunet.backend import Array, Backend, Shape, host
from gpunet.backend import device as open_device
from gpunet.chain import Chain
from gpunet.context import Context, Observer
from gpunet.errors import ArgumentError, ArrayError, ShapeError
from gpunet.formula import dtype_kind, dtype_name
from gpunet.layer import Layer, Saved, batched, require_built
from gpunet.layers import weights
from gpunet.layers.summary import summary_text
from gpunet.parameter import BYTES, MIXED, Parameter, ParameterStore
from gpunet.random import check_key


class Sequential(Layer):
    """Layers one after another: y = f_n(... f_1(x)), and backward by the chain rule.

    A built Sequential is a model: it owns the store of all parameters. Parameters are named by the layer's position or
    name, such as "0.weight" or "hidden.weight".
    """

    def __init__(self, *layers: Layer, name: str | None = None):
        super().__init__(name=name)
        for layer in layers:
            if not isinstance(layer, Layer):
                raise ArgumentError(f"Sequential takes layers, but got {layer!r}. Write Sequential(Dense(8), ReLU()).")
        names = [layer.name for layer in dict.fromkeys(layers) if layer.name]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ArgumentError(f"layer names must differ, but '{twice[0]}' occurs twice. Rename one.")
        self.layers = list(layers)
        self._store: ParameterStore | None = None
        self._takes_indices = False

    # ---- as a layer

    def setup(self, shape: Shape) -> Shape:
        """Attach all layers."""
        for i, layer in enumerate(self.layers):
            if i and layer.indices() is not None:
                raise ArgumentError(
                    f"{type(layer).__name__} takes integers: nothing may come before it. Make it the first."
                )
            shape = layer.attach(shape, self.backend, self.dtype, prefix=f"{self.prefix}{layer.name or i}.")
        return shape

    def sublayers(self) -> Sequence[Layer]:
        """The layers."""
        return self.layers

    def detach(self) -> None:
        """Forget a build that failed."""
        super().detach()
        self._store = None

    def parts(self) -> list[Layer]:
        """The parts of all layers: nested Sequentials are flattened."""
        return [part for layer in self.layers for part in layer.parts()]

    def chain(self) -> Chain:
        """All parts; while observed, the layers as they were given."""
        if self._chain is None:
            parts = self.parts()
            for part in parts:
                part.bind(self.backend, self.dtype)
            self._chain = Chain(parts, self.backend, unmerged=self.layers)
        return self._chain

    def indices(self) -> int | None:
        """Those of the first layer."""
        return self.layers[0].indices() if self.layers else None

    def parameters(self) -> list[Parameter]:
        """Of all layers, in order."""
        return [p for layer in self.layers for p in layer.parameters()]

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"layers": self.layers, "name": self.name}

    def __repr__(self) -> str:
        lines = "".join(f"\n  {line}," for layer in self.layers for line in repr(layer).split("\n"))
        return f"Sequential({lines}\n)" if lines else "Sequential()"

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """-> y, saved. A model checks its input here, once."""
        if self._store is not None:
            self._check_input(x)
        else:
            require_built(self)
        return self.chain().forward(x, ctx)

    # ---- as a model

    def build(
        self,
        shape: Shape,
        *,
        device: str | Backend = "auto",
        seed: int = 0,
        dtype: str = "float32",
        initial: Mapping[str, Any] | None = None,
    ) -> Sequential:
        """Make the parameters for inputs whose samples have this shape, and draw their initial values.

        initial  values for all parameters and states instead, as ``get_weights`` returns them
        A failing build leaves the model unbuilt.

        Raises
            ArgumentError: the model is built already, or dtype is none of "float32", "float64", "mixed_bfloat16" and
                "mixed_float16".
            ShapeError: a layer cannot take the shape it would get, or an initial value has another shape.
            DeviceError: the device is unknown or not usable.
        """
        if self.built is not None:
            raise ArgumentError(f"{self.title} is built already, for {batched(self.built[0])}. Make a new one.")
        if dtype not in (*BYTES, *MIXED):
            raise ArgumentError(f"dtype must be one of {', '.join((*BYTES, *MIXED))}, but got {dtype!r}.")
        if not isinstance(shape, Sequence) or not all(isinstance(n, Integral) and n > 0 for n in shape):
            raise ShapeError(f"build takes the shape of one sample, such as (64,), but got {shape!r}.")
        refuse_shared(self.layers)
        backend = open_device(device)
        with backend.scope():
            try:
                compute = MIXED.get(dtype, dtype)
                self.attach(tuple(int(n) for n in shape), backend, compute)
                arrays = None if initial is None else weights.checked(self, initial, all_of_them=True)
                store = ParameterStore(self.parameters(), backend, "float32" if dtype in MIXED else dtype, compute)
                self._store, self._takes_indices = store, self.indices() is not None
                store.initialize(seed) if arrays is None else weights.write(self, arrays)
            except BaseException:
                self.detach()
                raise
        return self

    @property
    def store(self) -> ParameterStore:
        """All parameters, flat."""
        require_built(self)
        if self._store is None:
            raise ArgumentError(f"{self.title} is part of a model. Ask the model that was built.")
        return self._store

    @property
    def output_shape(self) -> Shape:
        """Of one sample."""
        require_built(self)
        assert self.built is not None
        return self.built[1]

    @property
    def version(self) -> int:
        """Changes when the parameters are laid out anew."""
        return self.store.version

    def context(
        self,
        *,
        training: bool,
        step: int | None = 0,
        seed: int = 0,
        needs_input_grad: bool = False,
        observe: Observer | None = None,
        counter: Array | None = None,
        constants: dict[int, Array] | None = None,
    ) -> Context:
        """Begin a step. With ``training`` the next gradients overwrite those of the last step.

        seed, step          in [0, 2**32): the key of dropout. None while a step is recorded
        needs_input_grad    make ``backward`` return the gradient of the model's input
        observe             called with each layer and its output
        counter, constants  arrays that steps share: see ``Context``
        """
        if not 0 <= seed < 2**32 or not 0 <= (step or 0) < 2**32:
            check_key("seed", seed)
            check_key("step", step or 0)
        if training:
            self.store.begin()
        return Context(
            self.backend,
            training=training,
            step=step,
            seed=seed,
            version=self.store.version,
            needs_input_grad=needs_input_grad,
            observe=observe,
            counter=counter,
            constants=constants,
        )

    def _check_input(self, x: Array) -> None:
        if not self.backend.owns(x):
            raise ArrayError(
                f"{self.title} lives on {self.backend.name} and its forward takes arrays from there, but got a "
                f"{type(x).__module__}.{type(x).__name__}. Use model.backend.asarray(x), or model.predict(x)."
            )
        self.check_input_shape(tuple(x.shape))
        if x.dtype != self.store.rounded.dtype and not self._takes_indices:
            raise ArrayError(
                f"{self.title} computes in {self.dtype} but got an input of type {dtype_name(x.dtype)}. "
                f'Use model.backend.asarray(x, "{self.dtype}").'
            )

    def check_input_shape(self, shape: Shape) -> None:
        """Raises ShapeError unless a batch of this shape fits."""
        assert self.built is not None  # a model is built
        if not shape or shape[1:] != self.built[0]:
            first = self.layers[0].title if self.layers else self.title
            remedy = "Reshape the input."
            if shape == self.built[0]:
                remedy = "For one sample, add the batch axis: x[None]."
            elif len(shape) > 1 + len(self.built[0]):
                remedy = "Put a Flatten() before it."
            raise ShapeError(
                f"{first} was built for inputs of shape {batched(self.built[0])} but got {shape}. {remedy}"
            )

    def convert(self, x: Any, where: Backend) -> Array:
        """An input as layers take it, on a backend: in the model's type, or whole numbers if they are indices."""
        return where.asarray(x, None if self._takes_indices else self.dtype)

    def check_indices(self, x: Any) -> None:
        """Refuse host inputs that are no indices, or out of range, if the first layer takes indices."""
        n = self.indices()
        if n is None:
            return
        low, high = (x.min(), x.max()) if x.size else (0, 0)
        if dtype_kind(x.dtype) != "int" or low < 0 or high >= n:
            remedy = "Count from 0, or give it more entries."
            remedy = remedy if dtype_kind(x.dtype) == "int" else "Use x.astype('int32')."
            raise ArgumentError(
                f"{self.layers[0].title} takes integers in [0, {n}), but got {dtype_name(x.dtype)} from {low} to "
                f"{high}. {remedy}"
            )

    def predict(self, x: Any, *, batch_size: int = 256) -> Any:
        """Outputs for a host array, in batches: host array (n, …) in, host array out."""
        require_built(self)
        if batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, but got {batch_size!r}.")
        x = x if hasattr(x, "shape") else host().asarray(x)
        self.check_input_shape(tuple(x.shape))
        self.check_indices(x)
        backend, ctx = self.store.backend, self.context(training=False)
        outputs = []
        with backend.scope():
            for start in range(0, max(x.shape[0], 1), batch_size):
                y, _ = self.forward(self.convert(x[start : start + batch_size, ...], backend), ctx)
                outputs.append(backend.to_numpy(y))  # synchronises: the result is wanted on the host
        return host().asarray(host().xp.concatenate(outputs), self.store.dtype)

    def freeze(self, pattern: str, *, frozen: bool = True) -> None:
        """Freeze, or with ``frozen=False`` thaw, the parameters that match a pattern such as "0.*"."""
        with self.store.backend.scope():
            self.store.freeze(pattern, frozen)

    def get_weights(self) -> dict[str, Any]:
        """Copies of all parameters and states as host arrays, by name."""
        require_built(self)
        values = {n: one.master if isinstance(one, Parameter) else one.value for n, one in weights.named(self).items()}
        return weights.to_host(self, values)

    def get_gradients(self) -> dict[str, Any]:
        """Copies of all gradients as host arrays, by name; zeros for those that no layer wrote."""
        with self.store.backend.scope():
            self.store.finish()
        return weights.to_host(self, {p.name: p.grad for p in self.store.parameters})

    def set_weights(self, arrays: Mapping[str, Any]) -> None:
        """Write parameters and states by name, in place; those not named keep their values.

        Raises
            ArgumentError: an unknown name.   ShapeError: an array of another shape. Nothing is changed then.
        """
        require_built(self)
        weights.write(self, weights.checked(self, arrays))

    def summary(self) -> None:
        """Print layers, output shapes, parameter counts, and what runs as one formula."""
        require_built(self)
        print(summary_text(self))


def refuse_shared(layers: Sequence[Layer]) -> None:
    """A layer may be used twice in a model, but not in two models."""
    for layer in layers:
        if layer.built is not None:
            raise ArgumentError(
                f"{layer.title} belongs to another model. Make a new layer for each model; use one twice only within "
                "a model."
            )
        refuse_shared(layer.sublayers())
