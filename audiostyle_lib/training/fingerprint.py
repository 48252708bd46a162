"""Fingerprints of what makes a trained model: its network, the functions of its training, its data.

`loop.fit` keeps them beside the weights and trains again where one differs. A function counts with
all that decides what it computes: its compiled code, its defaults, the values it encloses and
everything of this library and of the notebook that it names, and what these name in turn. Comments,
docstrings and type hints are not part of compiled code, so they do not count. The source is not read,
because the file may have been edited since it was imported.

Used by every notebook that trains, ``notebooks/03_failed_resnet.ipynb`` to
``notebooks/10_future_work.ipynb``.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import sys
import types
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor, nn

AT_MOST = 1_000_000  # elements of an array that are looked at, spread over all of it
PLAIN = (
    type(None), bool, int, float, complex, str, bytes, range, types.EllipsisType, enum.Enum,
    torch.dtype, torch.device, np.dtype,
)  # fmt: skip
WITHOUT_ATTRIBUTES = (
    *PLAIN, Tensor, np.ndarray, np.generic, nn.Module, type, list, tuple, dict, set, frozenset,
)  # fmt: skip  # these count as a whole, whichever attribute the code names
INSIDE = {  # type -> the attributes that count, for objects that wrap a function
    types.MethodType: ("__self__", "__func__"),
    functools.partial: ("func", "args", "keywords"),
    functools.cached_property: ("func",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget",),
}
GLOBAL_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
ENCLOSED_LOADS = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
ATTRIBUTE_LOADS = {"LOAD_ATTR", "LOAD_METHOD"}


def fingerprint(*parts: object) -> str:
    """One hash of `parts`, equal only where nothing that counts in any of them differs.

    Parameters
    ----------
    *parts : object
        Anything; what counts depends on the type, see below.

    Returns
    -------
    str
        64 hexadecimal digits of SHA-256.

    Notes
    -----
    Numbers, strings, bytes and None count by value; lists, tuples, dicts, sets and dataclasses by what
    they hold; a path only as being one. An array or tensor counts by type, shape and three statistics
    to six digits, because the last bits of a matrix product depend on the number of threads. A network
    counts by its code and attributes, and by its weights to four digits. Of any other object count the
    attributes that the code names, as in ``run.profile.epochs``, and of an installed library only names.
    """
    return hashlib.sha256(repr(_Reader().read(parts)).encode()).hexdigest()


@functools.cache
def _is_tracked(module: str) -> bool:
    """Whether code of a module counts: of this library, of a notebook, of no installed library."""
    root = module.partition(".")[0]
    if root in ("__main__", __name__.partition(".")[0]):
        return True
    if root in sys.stdlib_module_names:
        return False
    if root not in sys.modules:
        return True
    file = getattr(sys.modules[root], "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _statistics(values: np.ndarray, digits: int) -> tuple[str, ...]:
    """Root mean square and, relative to it, the mean and a mean that depends on the order."""
    if not values.size:
        return ()
    rms = float(np.sqrt(np.mean(np.square(values))))
    means = np.mean(values), np.mean(values * np.sin(1.0 + np.arange(values.size)))
    relative = [round(float(mean) / (rms or 1.0), digits) + 0.0 for mean in means]  # never -0.0
    return f"{rms:.{digits}g}", *map(str, relative)


class _Reader:
    """Reads values into nested tuples of strings that are the same in every process."""

    def __init__(self):
        # by id; the object is kept, so that no other one gets its id
        self.seen: dict[int, tuple[str, object]] = {}

    def read(self, value: object):
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, np.generic):
            return repr(value.item())
        if isinstance(value, PurePath):
            return "path"
        if isinstance(value, types.ModuleType):
            return "module", value.__name__
        if isinstance(value, tuple):
            return type(value).__name__, *map(self.read, value)
        if isinstance(value, frozenset):
            return "set", *sorted(repr(self.read(x)) for x in value)
        if id(value) in self.seen:
            return self.seen[id(value)][0]
        self.seen[id(value)] = f"seen {len(self.seen)}", value
        return self._read_new(value)

    def _read_new(self, value: object):
        if isinstance(value, list):
            return "list", *map(self.read, value)
        if isinstance(value, set):
            return self.read(frozenset(value))
        if isinstance(value, (dict, types.MappingProxyType)):
            items = sorted(value.items(), key=lambda item: repr(item[0]))
            return "dict", *((self.read(k), self.read(v)) for k, v in items)
        if isinstance(value, (Tensor, np.ndarray)):
            return self._array(value)
        if isinstance(value, nn.Module):
            return self._network(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        return self._object(value)

    def _array(self, x: Tensor | np.ndarray, digits: int = 6):
        what = type(x).__name__, str(x.dtype), str(tuple(x.shape))
        if isinstance(x, np.ndarray) and x.dtype.kind not in "biufc":
            return *what, self.read(x.tolist())
        flat = x.detach().reshape(-1) if isinstance(x, Tensor) else x.reshape(-1)
        # an odd step, because an even one can meet the same few columns in every row
        sample = flat[:: -(-len(flat) // AT_MOST) | 1]
        if isinstance(sample, Tensor):
            wide = torch.complex128 if sample.is_complex() else torch.float64
            sample = sample.to("cpu", wide).numpy()
        parts = (sample.real, sample.imag) if np.iscomplexobj(sample) else (sample,)
        return *what, *(_statistics(part.astype(np.float64), digits) for part in parts)

    def _network(self, network: nn.Module):
        parts = [
            (name, self.read(type(part)), part.extra_repr(), self.read(_own_attributes(part)))
            for name, part in network.named_modules()
        ]
        named = [*network.named_parameters(), *network.named_buffers()]
        # fewer digits, because weights that begin as a PCA carry the rounding of its eigenvectors
        weights = ((name, x.requires_grad, self._array(x, digits=4)) for name, x in named)
        return "network", *parts, *weights

    def _class(self, kind: type):
        if not _is_tracked(kind.__module__):
            return "class", kind.__module__, kind.__qualname__
        members = {
            name: value
            for name, value in vars(kind).items()
            if not name.startswith("__") or isinstance(value, (types.FunctionType, *INSIDE))
        }
        return "class", kind.__qualname__, self.read(kind.__bases__), self.read(members)

    def _object(self, value: object):
        kind = type(value)
        if kind in INSIDE:
            return kind.__name__, *(self.read(getattr(value, name)) for name in INSIDE[kind])
        if hasattr(value, "__wrapped__"):  # a function with a cache
            return kind.__name__, self.read(value.__wrapped__)
        if dataclasses.is_dataclass(value):
            held = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return "dataclass", self.read(kind), self.read(held)
        if _is_tracked(kind.__module__):
            return "object", self.read(kind), self.read(getattr(value, "__dict__", {}))
        return "object", kind.__module__, kind.__qualname__, getattr(value, "__name__", "")

    def _function(self, function: types.FunctionType):
        module = function.__globals__.get("__name__", "")  # `functools.wraps` copies `__module__`
        if not _is_tracked(module):
            inner = getattr(function, "__wrapped__", None)
            return "function", module, function.__code__.co_qualname, self.read(inner)
        code, chains = self._code(function.__code__)
        enclosed = _enclosed(function)
        named = []
        for is_global, name, *attributes in sorted(chains):
            scope = function.__globals__ if is_global else enclosed
            if name in scope:  # else it is built in, or local to a function inside this one
                named.append((name, self._attribute(scope[name], attributes)))
        defaults = function.__defaults__, function.__kwdefaults__
        return "function", code, self.read(defaults), *named

    def _attribute(self, value: object, names: list[str]):
        """What code means by ``value.a.b``: of a module or an object only that attribute."""
        is_module = isinstance(value, types.ModuleType)
        is_tracked = _is_tracked(value.__name__ if is_module else type(value).__module__)
        if not names or not is_tracked or isinstance(value, WITHOUT_ATTRIBUTES):
            return self.read(value)
        if not is_module:
            found = inspect.getattr_static(type(value), names[0], None)
            if isinstance(found, (types.FunctionType, *INSIDE)):
                return self.read(found)  # the code of a method or property, which is not called
        if not hasattr(value, names[0]):
            return "missing"
        return self._attribute(getattr(value, names[0]), names[1:])

    def _code(self, code: types.CodeType):
        """Compiled code, and what it names: (is global, name, attribute, attribute of that, ...).

        A docstring is a constant that no instruction loads. So constants are read where they are
        loaded, and none of the numbers under which the code keeps them counts.
        """
        text, chains, chain = [], set(), ()
        for i in dis.get_instructions(code):
            argument = i.argrepr
            if isinstance(i.argval, types.CodeType):
                argument, inner = self._code(i.argval)
                chains |= inner
            elif i.opcode in dis.hasconst:
                argument = self.read(i.argval)
            if i.opname == "EXTENDED_ARG":
                continue
            text.append((i.opname, argument))
            if chain and i.opname in ATTRIBUTE_LOADS:
                chain = (*chain, i.argval)
                continue
            chains |= {chain} - {()}
            chain = ()
            if i.opname in GLOBAL_LOADS | ENCLOSED_LOADS:
                chain = (i.opname in GLOBAL_LOADS, i.argval)
        variadic = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, variadic
        return (counts, code.co_varnames, code.co_exceptiontable, *text), chains


def _enclosed(function: types.FunctionType) -> dict:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {
        name: cell.cell_contents for name, cell in cells if cell != types.CellType()
    }  # not empty


def _own_attributes(part: nn.Module) -> dict:
    return {k: v for k, v in vars(part).items() if not k.startswith("_") and k != "training"}
