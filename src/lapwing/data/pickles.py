"""Pickles of strangers, read without running anything in them.

Other projects keep statistics and episodes in pickles. Unpickling calls whatever a file names, so a file can do
anything. Here a name has to be on a short list, and even then it stands for a function of this module that checks
what it is given: neither numpy's own unpickling, which trusts the file's sizes and flags, nor any class is reached.
What would fill the memory or overrun the stack of the unpickler itself is refused before it starts.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lapwing.episode import Array
from lapwing.errors import DataError

_NUMBERS = re.compile(r"\?|[biufc]\d{1,2}|[SU]\d{1,9}")  # dtypes whose bytes are data, never pointers
_MOST_AXES = 64  # of an array, since numpy 2
_MOST_NESTED = 10_000  # tuples within one tuple; hashing a key costs stack and time for each
_UNUSED = ("OBJ", "EXT1", "EXT2", "EXT4")  # what no pickle of plain values has; of extensions the cache asks no one


def load_restricted(path: Path) -> Any:
    """What a pickle holds, as long as that is plain containers, numbers, text and numpy arrays of these.

    Mappings come as dict. The file is gone through piece by piece and arrays use the bytes they came in, so that it
    takes about as much memory as the file has bytes; such arrays may be read-only.
    Raises DataError naming the first class or function that is none of these, unreached, and for a damaged file.
    """
    try:
        with path.open("rb") as file:
            _expect_bearable(file)
            file.seek(0)
            return _Converter().convert(_Unpickler(file).load())
    except _Refused as refused:
        raise DataError(
            f"{path}: holds {refused}, expected numbers, text, plain containers and numpy arrays alone; nothing of it "
            "was run. Where you trust the file, load it with its own program and store plain arrays"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check the path") from error
    except RecursionError:
        raise DataError(
            f"{path}: holds containers within themselves or too deep in each other, expected plain ones; where you "
            "trust the file, load it with its own program and store plain arrays"
        ) from None
    except Exception as error:  # of a broken stream the unpickler raises about anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise DataError(f"{path}: not a whole pickle ({reason}); copy it again") from error


class _Refused(Exception):
    """Something in a pickle that is not read."""


def _expect_bearable(file: BinaryIO) -> None:
    """Walk through the operations without doing them. Raises ValueError or _Refused for what no program writes.

    The unpickler makes room for whatever index a value is kept under, and hashes every tuple within a key, as often as
    it is there, in one recursion that nothing stops.
    """
    stack: list[int | None] = []  # how many tuples each value on the unpickler's stack counts; None is a mark
    kept: dict[Any, int | None] = {}
    for position, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if operation.name in _UNUSED:
            raise ValueError(f"unexpected {operation.name}")
        taken: list[int | None] = []
        for slot in reversed(operation.stack_before):
            if slot is pickletools.stackslice:
                while stack[-1] is not None:
                    taken.append(stack.pop())
            else:
                taken.append(stack.pop())
        match operation.name:
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                count: int | None = 1 + sum(one or 0 for one in taken)
            case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS" | "ADDITEMS" | "BUILD" | "DUP" | "MEMOIZE":
                count = taken[-1]  # the value is the one that was there
            case "GET" | "BINGET" | "LONG_BINGET":
                count = kept[argument]
            case "MARK":
                count = None
            case _:
                count = 0
        if count is not None and count > _MOST_NESTED:
            raise _Refused(f"a tuple of more than {_MOST_NESTED} tuples")
        stack += [count] * len(operation.stack_after)
        match operation.name:
            case "MEMOIZE":
                kept[len(kept)] = count
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                if (argument or 0) > position:
                    raise ValueError(f"a value kept under {argument} after {position} operations")
                kept[argument] = stack[-1]


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        # made anew for every file, because a pickle can set attributes of what it is given
        self._known = _known()

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in self._known:
            raise _Refused(ascii(f"{module}.{name}"[:200])[1:-1])  # on one line, with no codes for the terminal
        return self._known[module, name]

    def persistent_load(self, pid: Any, /) -> Any:
        raise _Refused("a reference to something outside the file")


class _Numpy:
    """Stands for numpy.ndarray, which pickles only mention."""


class _Dtype:
    """A dtype as a pickle tells it: made from a code such as "f8", then told its byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        del align, copy  # they do not matter to plain numbers
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise _Refused(
                "an array of Python objects" if code in ("O", "O8") else f"an array of dtype {reprlib.repr(code)}"
            )
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        _, order, *details = state
        if order not in ("<", ">", "|", "=") or any(detail is not None for detail in details[:3]):
            raise _Refused(f"an array of dtype {reprlib.repr(state)}")
        self._order = order

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self._order + self._code)


class _ArrayLike:
    """An array as a pickle tells it: made empty before protocol 5, then told what it holds."""

    def __init__(self, values: Array | None = None) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        self.values = _array(raw, dtype, shape, "F" if is_fortran else "C")


def _empty(kind: Any, shape: Any, code: Any) -> _ArrayLike:
    del shape, code  # of the empty array
    if not isinstance(kind, _Numpy):
        raise _Refused("an array of a class of its own")
    return _ArrayLike()


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Bytes as an array, without a copy. Raises ValueError where the size is not that of the shape."""
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray) or order not in ("C", "F"):
        raise _Refused("an array of something else than bytes")
    sides = tuple(shape)
    if len(sides) > _MOST_AXES or not all(type(side) is int and 0 <= side < 2**63 for side in sides):
        raise ValueError(f"an array of shape {reprlib.repr(sides)}")
    plain = dtype.numpy()
    # text of length zero fits any number of times in no bytes; numpy has it as a scalar only
    if len(raw) != math.prod(sides) * plain.itemsize or (not plain.itemsize and math.prod(sides) > 1):
        raise ValueError(f"{len(raw)} bytes for an array of shape {sides} and dtype {plain}")
    if not raw:
        return np.zeros(sides, plain, order)
    return np.frombuffer(raw, plain).reshape(sides, order=order)


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> _ArrayLike:
    """An array of pickle protocol 5. `axis_order`: of other layouts than C and Fortran, since numpy 2.3."""
    if order != "K":
        return _ArrayLike(_array(raw, dtype, shape, order))
    return _ArrayLike(_array(raw, dtype, shape, "C").transpose(axis_order))


def _scalar(dtype: Any, raw: Any) -> Any:
    return _array(raw, dtype, (), "C")[()]


def _encoded(text: Any, encoding: Any) -> bytes:
    """Bytes, which protocols 0 to 2 spell as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused(f"text in the encoding {reprlib.repr(encoding)}")
    return text.encode("latin1")


def _bytearray(raw: Any = b"") -> bytearray:
    if not isinstance(raw, bytes):  # of a number it would make as many zeros
        raise _Refused(f"a bytearray of a {type(raw).__name__}")
    return bytearray(raw)


def _known() -> Mapping[tuple[str, str], Any]:
    """Names a pickle may use, each with what stands for it."""
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _Numpy(),
        ("numpy", "dtype"): lambda *arguments: _Dtype(*arguments),
        ("_codecs", "encode"): lambda *arguments: _encoded(*arguments),
        ("collections", "OrderedDict"): dict,
    }
    for core in ("numpy.core", "numpy._core"):  # before numpy 2 and since
        names[f"{core}.multiarray", "_reconstruct"] = lambda *arguments: _empty(*arguments)
        names[f"{core}.multiarray", "scalar"] = lambda *arguments: _scalar(*arguments)
        names[f"{core}.numeric", "_frombuffer"] = lambda *arguments: _from_buffer(*arguments)
    for builtins in ("builtins", "__builtin__"):  # Python 3 and, in protocols 0 to 2, 2
        names |= {
            (builtins, "set"): set,
            (builtins, "frozenset"): frozenset,
            (builtins, "complex"): complex,
            (builtins, "bytes"): lambda: b"",
            (builtins, "bytearray"): lambda *arguments: _bytearray(*arguments),
        }
    return names


class _Converter:
    """Puts arrays where the unpickler left what stands for them, each container once."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}

    def convert(self, value: Any) -> Any:
        if id(value) not in self._done:
            self._done[id(value)] = self._plain(value)
        return self._done[id(value)]

    def _plain(self, value: Any) -> Any:
        match value:
            case _ArrayLike():
                if value.values is None:
                    raise ValueError("an array without values")
                return value.values
            case dict():
                return {self._key(key): self.convert(one) for key, one in value.items()}
            case list():
                return [self.convert(one) for one in value]
            case tuple():
                return tuple(self.convert(one) for one in value)
            case set() | frozenset():
                return type(value)(self._key(one) for one in value)
            case None | bool() | int() | float() | complex() | str() | bytes() | bytearray() | np.generic():
                return value
        raise _Refused("a class or function as a value")

    def _key(self, key: Any) -> Any:
        """What is looked up by its value has no array in it, so there is nothing to put there."""
        match key:
            case None | bool() | int() | float() | complex() | str() | bytes() | np.generic():
                return key
            case tuple():
                return tuple(self._key(one) for one in key)
        raise _Refused(f"a {type(key).__name__} as a key")
