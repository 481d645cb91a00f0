"""Tracing: a formula is run on symbols, and what it did to them becomes a Graph; anything else is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

from gpunet.errors import FormulaError
from gpunet.formula.graph import Graph, Node, prune
from gpunet.formula.shapes import ROWS, WIDE, DType, Kind, Operand, join, kind_of

Formula: TypeAlias = Callable[..., Any]
"""(xp, *operands) -> value | tuple of values"""

UNARY = frozenset(
    [
        *("abs", "ceil", "cos", "erf", "exp", "expm1", "floor", "log"),
        *("log1p", "negative", "sigmoid", "sign", "sin", "sqrt", "square", "tanh"),
    ]
)
BINARY = frozenset(["add", "subtract", "multiply", "divide", "maximum", "minimum", "pow"])
COMPARISONS = frozenset(["greater", "less", "greater_equal", "less_equal", "equal", "not_equal"])
TESTS = frozenset(["isfinite", "isinf", "isnan"])
LOGIC = frozenset(["logical_and", "logical_or", "logical_not"])
REDUCTIONS = frozenset(["sum", "max", "mean"])
OUTPUT_ONLY = frozenset(["column_sum", "total"])
ARITY = dict.fromkeys(UNARY | TESTS | {"logical_not"}, 1) | {"where": 3}


class Tracer:
    """Collects the operations of one formula; equal ones are kept once."""

    def __init__(self, name: str):
        self.name = name
        self.nodes: list[Node] = []
        self._symbols: dict[tuple[Any, ...], Symbol] = {}

    def add(self, op: str, args: Sequence[Symbol], value: Any, kind: Kind, dtype: DType) -> Symbol:
        """The symbol of one operation."""
        positions = tuple(a.position for a in args)
        key = (op, positions, repr(value), dtype)
        if key not in self._symbols:
            self._symbols[key] = Symbol(self, len(self.nodes), kind, dtype, op)
            self.nodes.append(Node(op, positions, value, kind, dtype))
        return self._symbols[key]

    def refuse(self, what: str, remedy: str = "") -> NoReturn:
        """Raise FormulaError."""
        raise FormulaError(f"formula '{self.name}': {what} is not in the formula language. {remedy}".rstrip())

    def lift(self, x: Any, dtype: DType = "float") -> Symbol:
        """A symbol of this formula, or a constant: a whole number takes the type of its partners."""
        if isinstance(x, Symbol):
            if x.tracer is not self:
                self.refuse("a value of another formula")
            return x
        if type(x) is bool:
            return self.add("const", (), x, "scalar", "bool")
        if type(x) is int and dtype == "int":
            return self.add("const", (), x, "scalar", "int")
        if type(x) in (int, float):
            return self.add("const", (), float(x), "scalar", "float")
        self.refuse(f"a constant of type {type(x).__name__}", "Python numbers are constants; pass arrays as operands.")

    def elementwise(self, op: str, *args: Any) -> Symbol:
        """An operation on the elements of its arguments."""
        if len(args) != ARITY.get(op, 2):
            self.refuse(f"{op} of {len(args)} arguments")
        partner = "int" if any(isinstance(a, Symbol) and a.dtype == "int" for a in args) else "float"
        symbols = [self.lift(a, partner) for a in args]  # type: ignore[arg-type]
        for symbol in symbols:
            if symbol.op in OUTPUT_ONLY:
                self.refuse(f"using the result of {symbol.op}", "It can only be an output.")
        if op == "where" and symbols[0].dtype != "bool":
            self.refuse("where on a condition that is not a comparison")
        types = {s.dtype for s in (symbols[1:] if op == "where" else symbols)}
        allowed: set[DType] = {"bool"} if op in LOGIC else {"float", "int"} if op in COMPARISONS else {"float"}
        if len(types) > 1 or not types <= allowed:
            remedy = "" if op in LOGIC else "Integers and booleans are only compared or selected by."
            self.refuse(f"{op} of {' and '.join(sorted(types))}", remedy)
        result: DType = "bool" if op in COMPARISONS | TESTS | LOGIC else "float"
        return self.add(op, symbols, None, join([s.kind for s in symbols]), result)

    def reduce(self, op: str, x: Any, axis: Any, keepdims: Any) -> Symbol:
        """sum, max or mean over the last axis."""
        symbol = self.lift(x)
        if axis != -1 or keepdims is not True:
            self.refuse(f"{op}(axis={axis}, keepdims={keepdims})", "Write axis=-1, keepdims=True.")
        self._expect(op, symbol, WIDE[symbol.kind], "does not vary along the last axis")
        return self.add(op, [symbol], None, kind_of(ROWS[symbol.kind], False), "float")

    def column_sum(self, y: Symbol) -> Symbol:
        """Sum over all rows."""
        self._expect("column_sum", y, y.kind == "full", "does not vary over rows and the last axis")
        return self.add("column_sum", [y], None, "col", "float")

    def total(self, y: Symbol) -> Symbol:
        """Sum over all elements."""
        self._expect("total", y, ROWS[y.kind], "does not vary over rows")
        return self.add("total", [y], None, "scalar", "float")

    def index(self, x: Symbol) -> Symbol:
        """Position along the last axis."""
        if not WIDE[x.kind]:
            self.refuse("index of a value that does not vary along the last axis")
        return self.add("index", (), None, "col", "int")

    def random_bits(self, x: Symbol, *key: Any) -> Symbol:
        """Random bits per element."""
        if x.kind != "full":
            self.refuse("random_bits for a value that does not vary over rows and the last axis")
        symbols = [self.lift(k, "int") for k in key]
        if any(s.kind != "scalar" or s.dtype != "int" for s in symbols):
            self.refuse("random_bits with a key that is not a 0-d integer")
        return self.add("random_bits", symbols, None, "full", "int")

    def _expect(self, op: str, x: Symbol, holds: bool, otherwise: str) -> None:
        if x.op in OUTPUT_ONLY:
            self.refuse(f"using the result of {x.op}", "It can only be an output.")
        if x.dtype != "float":
            self.refuse(f"{op} of {x.dtype}", "Turn it into numbers with xp.where(condition, 1.0, 0.0).")
        if not holds:
            self.refuse(f"{op} of a value that {otherwise}")

    def replay(self, node: Node, args: list[Symbol]) -> Symbol:
        """An operation of a graph that is being traced into this formula."""
        if node.op in REDUCTIONS:
            return self.reduce(node.op, args[0], -1, True)
        if node.op in OUTPUT_ONLY:
            return self.column_sum(args[0]) if node.op == "column_sum" else self.total(args[0])
        if node.op in ("const", "index", "random_bits"):
            return self.add(node.op, args, node.value, node.kind, node.dtype)
        return self.elementwise(node.op, *args)


class Symbol:
    """A value of a formula while it is traced. Python's operators work on it; nothing else does."""

    __slots__ = ("dtype", "kind", "op", "position", "tracer")
    __hash__ = object.__hash__

    def __init__(self, tracer: Tracer, position: int, kind: Kind, dtype: DType, op: str):
        self.tracer, self.position, self.kind, self.dtype, self.op = tracer, position, kind, dtype, op

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # protocols that Python or NumPy look for
            raise AttributeError(name)
        self.tracer.refuse(f"the attribute .{name}", "Use xp functions.")

    def __array_ufunc__(self, ufunc: Any, *args: Any, **kwargs: Any) -> NoReturn:
        self.tracer.refuse(f"numpy.{ufunc.__name__}, or a NumPy array", "Use xp functions; pass arrays as operands.")


def _binary(op: str, swap: bool = False) -> Callable[[Symbol, Any], Symbol]:
    if swap:
        return lambda a, b: a.tracer.elementwise(op, b, a)
    return lambda a, b: a.tracer.elementwise(op, a, b)


def _unary(op: str) -> Callable[[Symbol], Symbol]:
    return lambda a: a.tracer.elementwise(op, a)


def _refused(what: str, remedy: str = "") -> Callable[..., NoReturn]:
    return lambda a, *args, **kwargs: a.tracer.refuse(what, remedy)


def _install_operators() -> None:
    """Give Symbol Python's operators, and a refusal for each that is not in the language."""
    for name, op in {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "pow"}.items():
        setattr(Symbol, f"__{name}__", _binary(op))
        setattr(Symbol, f"__r{name}__", _binary(op, swap=True))
    comparisons = {"gt": "greater", "lt": "less", "ge": "greater_equal", "le": "less_equal", "eq": "equal"}
    binary = comparisons | {"ne": "not_equal", "and": "logical_and", "or": "logical_or"}
    for name, op in binary.items():
        setattr(Symbol, f"__{name}__", _binary(op))
    for name, op in {"neg": "negative", "abs": "abs", "invert": "logical_not"}.items():
        setattr(Symbol, f"__{name}__", _unary(op))
    flow = "Python's if, and, or, not, min, max or a chained comparison"
    setattr(Symbol, "__bool__", _refused(flow, "Use xp.where, xp.minimum, xp.maximum, & and |."))  # noqa: B010
    others = {"float": "float() or math.*", "int": "int()", "index": "use as an index", "getitem": "slicing"}
    others |= {"setitem": "assignment", "iter": "iteration", "len": "len()", "matmul": "the matrix product"}
    others |= {"array": "conversion to NumPy", "floordiv": "//", "mod": "%", "rmatmul": "the matrix product"}
    for name, what in others.items():
        setattr(Symbol, f"__{name}__", _refused(what))


_install_operators()


class SymbolicXP:
    """The namespace a formula sees while it is traced."""

    def __init__(self, tracer: Tracer):
        self._tracer = tracer
        self.replay = tracer.replay

    def sum(self, x: Any, *, axis: Any = None, keepdims: Any = False) -> Symbol:
        """Sum over the last axis."""
        return self._tracer.reduce("sum", x, axis, keepdims)

    def max(self, x: Any, *, axis: Any = None, keepdims: Any = False) -> Symbol:
        """Maximum over the last axis; NaN propagates."""
        return self._tracer.reduce("max", x, axis, keepdims)

    def mean(self, x: Any, *, axis: Any = None, keepdims: Any = False) -> Symbol:
        """Mean over the last axis."""
        return self._tracer.reduce("mean", x, axis, keepdims)

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name == "where" or name in UNARY - {"erf", "sigmoid"} | BINARY | COMPARISONS | TESTS | LOGIC:
            return lambda *args: self._tracer.elementwise(name, *args)
        self._tracer.refuse(f"xp.{name}")


def name_of(formula: Formula) -> str:
    """The name that error messages and generated sources use."""
    return str(getattr(formula, "name", None) or getattr(formula, "__qualname__", None) or type(formula).__name__)


def trace(formula: Formula, operands: Sequence[Operand | None], name: str | None = None) -> Graph:
    """Run the formula on symbols and return its graph; None stands for an operand it must not touch.

    Raises
        FormulaError: the formula does something outside the language; the message names it.
    """
    tracer = Tracer(name or name_of(formula))
    symbols = [None if o is None else tracer.add("operand", (), i, o.kind, o.dtype) for i, o in enumerate(operands)]
    result = formula(SymbolicXP(tracer), *symbols)
    single = not isinstance(result, tuple)
    outputs = [tracer.lift(r) for r in ((result,) if single else result)]
    full = join([o.kind for o in operands if o is not None])
    for output in outputs:
        if output.dtype == "int":
            tracer.refuse("an integer output")
        if output.op not in OUTPUT_ONLY and ROWS[output.kind] != ROWS[full]:
            tracer.refuse("an output that does not vary over rows although an operand does")
    nodes, positions = prune(tracer.nodes, [o.position for o in outputs])
    return Graph(tracer.name, operands, nodes, positions, single)
