"""What a value of a formula varies over, and how that follows from the shapes of the operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Shape: TypeAlias = tuple[int, ...]
Kind: TypeAlias = Literal["scalar", "row", "col", "full"]
"""What a value varies over: nothing | rows | k | both. scalar and row are narrow, col and full are wide."""
DType: TypeAlias = Literal["float", "int", "bool"]

ROWS: dict[Kind, bool] = {"scalar": False, "row": True, "col": False, "full": True}
WIDE: dict[Kind, bool] = {"scalar": False, "row": False, "col": True, "full": True}
REDUCED = frozenset({"column_sum", "total"})
"""Operations whose result can only be an output."""


def kind_of(rows: bool, wide: bool) -> Kind:
    """The kind that varies over these axes."""
    if rows:
        return "full" if wide else "row"
    return "col" if wide else "scalar"


def join(kinds: Sequence[Kind]) -> Kind:
    """The kind of an elementwise result."""
    return kind_of(any(ROWS[k] for k in kinds), any(WIDE[k] for k in kinds))


@dataclass(frozen=True)
class Operand:
    """What tracing must know of one operand: which axes it varies over, and float, int or bool."""

    kind: Kind
    dtype: DType = "float"


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The result's shape. An axis of length 1 takes the other length, also when that is 0."""
    ndim = max((len(s) for s in shapes), default=0)
    result = [1] * ndim
    for shape in shapes:
        for axis, size in enumerate(shape, start=ndim - len(shape)):
            if size != 1:
                if result[axis] not in (1, size):
                    raise ValueError(f"shapes {', '.join(map(str, shapes))} do not broadcast")
                result[axis] = size
    return tuple(result)


HALF = ("float16", "bfloat16")
"""Data types that values are stored in but not computed with."""


def arithmetic(dtype: str) -> str:
    """The data type that values stored like this are computed in, and sums over rows are returned in."""
    return "float32" if dtype in HALF else dtype


_names: dict[tuple[type, Any], str] = {}


def dtype_kind(dtype: Any) -> DType:
    """float, int or bool, by the name any namespace gives the data type."""
    name = dtype_name(dtype)
    return "float" if "float" in name else "bool" if name.startswith("bool") else "int"


def dtype_name(dtype: Any) -> str:
    """The name "float32" for numpy.float32, torch.float32, …; remembered, since NumPy takes 2.5 µs for it."""
    key = (type(dtype), dtype)  # the type first: dtypes of two namespaces must not be compared
    name = _names.get(key)
    if name is None:
        name = _names[key] = str(getattr(dtype, "name", None) or dtype).rsplit(".", 1)[-1]
    return name


def int32(xp: Any, integers: Any) -> Any:
    """Integers of any type as int32; those past it become its ends, which are out of any range."""
    if integers.dtype == xp.int32:
        return integers
    name = dtype_name(integers.dtype)
    if name in ("int64", "uint32", "uint64"):
        integers = xp.clip(integers, 0 if name[0] == "u" else -(2**31), 2**31 - 1)
    return xp.astype(integers, xp.int32)


def classify(shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[Operand]:
    """Operand kinds from shapes. An axis that is missing, or whose length is not the result's, is broadcast.

    Length 1 where the result has length 1 too is not broadcast, else batch size 1 would be another kernel. An operand
    that has some of the leading axes varies over rows. In a 1-D result there is one row, and it has no axis of its own.
    """
    full = broadcast(shapes)
    operands = []
    for shape, dtype in zip(shapes, dtypes, strict=True):
        wide = bool(shape) and shape[-1] == full[-1]
        if len(full) == 1:
            rows = wide
        else:
            lead = shape[:-1]
            rows = bool(lead) and any(a == b for a, b in zip(reversed(lead), reversed(full[:-1]), strict=False))
        operands.append(Operand(kind_of(rows, wide), dtype_kind(dtype)))
    return operands
