"""Pickles of strangers: plain ones are read to the bit, and nothing in any other is run."""

from __future__ import annotations

import builtins
import codecs
import collections
import copyreg
import functools
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from lapwing.data.pickles import load_restricted
from lapwing.errors import DataError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[bytes], Any]:
    """load(pickled): what `load_restricted` makes of a file with these bytes."""

    def read(pickled: bytes) -> Any:
        path = tmp_path / "data.pkl"
        path.write_bytes(pickled)
        return load_restricted(path)

    return read


class Calls:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> Any:
        return self._reduced


def same(got: Any, expected: Any) -> bool:
    """Equal values of equal types, arrays of equal dtype, shape and bits."""
    if isinstance(expected, np.ndarray | np.generic):
        return type(got) is type(expected) and got.dtype == expected.dtype and got.tobytes() == expected.tobytes()
    if isinstance(expected, dict):
        return [*got] == [*expected] and all(same(got[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return type(got) is type(expected) and all(map(same, got, expected)) and len(got) == len(expected)
    return type(got) is type(expected) and bool(got == expected)


STATISTICS = {
    "action_mean": np.linspace(-1, 1, 14, dtype=np.float32),
    "action_std": np.full(14, 0.01),
    "example_qpos": np.arange(84, dtype=np.float32).reshape(6, 14),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        STATISTICS,
        np.arange(6, dtype=np.int16).reshape(2, 3).T,
        np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2],
        np.array(2.5),
        np.zeros((0, 3)),
        np.array([["left", "right"]]),
        np.array([True, False]),
        np.array([1 + 2j, 3]),
        [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("name")],
        [None, True, 3, 10**30, 1.5, 2j, "text", "\xe9\u4e2d", b"", b"\x00\xff", bytearray(b"ab"), bytearray()],
        ({"a": (1, [2, {3}]), 4: frozenset([5]), (6, "b"): None, b"c": {}},),
    ],
    ids=str,
)
def test_plain_values_come_back(load: Callable[[bytes], Any], value: Any, protocol: int) -> None:
    assert same(load(pickle.dumps(value, protocol)), value)


@settings(deadline=None, max_examples=60)
@given(
    values=st_numpy.arrays(
        st.sampled_from(["<f4", ">f8", "<i8", "|u1", "|b1", "<c8", "<U3", "|S2"]), st_numpy.array_shapes(min_dims=0)
    ),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_any_array_comes_back(tmp_path_factory: pytest.TempPathFactory, values: Any, protocol: int) -> None:
    path = tmp_path_factory.mktemp("pickle") / "array.pkl"
    path.write_bytes(pickle.dumps({"values": values}, protocol))
    assert same(load_restricted(path)["values"], values)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_numpy_before_2_come_back(load: Callable[[bytes], Any], protocol: int) -> None:
    pickled = pickle.dumps(STATISTICS, protocol)
    module = b"numeric" if protocol == 5 else b"multiarray"
    new, old = b"numpy._core." + module, b"numpy.core." + module
    if protocol >= 4:  # names carry their length
        new, old = bytes([len(new)]) + new, bytes([len(old)]) + old
        pickled = pickled[:2] + pickled[11:]  # without the frame, which carries its length too
    assert new in pickled
    assert same(load(pickled.replace(new, old)), STATISTICS)


def test_ordered_mappings_become_plain_ones(load: Callable[[bytes], Any]) -> None:
    value = collections.OrderedDict([("b", np.ones(2)), ("a", collections.OrderedDict())])
    got = load(pickle.dumps(value))
    assert [type(got), type(got["a"])] == [dict, dict]
    assert [*got] == ["b", "a"]


def test_what_is_shared_stays_shared_and_is_read_once(load: Callable[[bytes], Any]) -> None:
    value: Any = [np.ones(1)]
    for _ in range(60):  # 2^60 arrays, if each were read for itself
        value = [value, value]
    got = load(pickle.dumps(value))
    assert got[0] is got[1]


ATTACKS: dict[str, tuple[Any, str]] = {
    "system": (Calls(os.system, "touch FLAG"), r"posix\.system"),
    "eval": (Calls(builtins.eval, "open('FLAG', 'w')"), r"(builtins|__builtin__)\.eval"),
    "exec": (Calls(builtins.exec, "open('FLAG', 'w')"), r"(builtins|__builtin__)\.exec"),
    "open": (Calls(builtins.open, "FLAG", "w"), r"i?o\.open|_io\.open|(builtins|__builtin__)\.open"),
    "popen": (Calls(subprocess.Popen, ["touch", "FLAG"]), r"subprocess\.Popen|commands\.Popen"),
    "getattr": (Calls(getattr, Calls(__import__, "os"), "system"), r"(builtins|__builtin__)\.(getattr|__import__)"),
    "partial": (Calls(functools.partial, os.system, "touch FLAG"), r"functools\.partial"),
    "numpy load": (Calls(np.load, "FLAG"), r"numpy.*\.load"),
    "numpy file": (Calls(np.memmap, "FLAG", "u1", "w+", 0, (1,)), r"numpy.*memmap"),
    "numpy text": (Calls(np.fromfile, "FLAG"), r"numpy.*fromfile"),
    "numpy test": (Calls(np.testing.measure, "open('FLAG', 'w')"), r"numpy\.testing.*\.measure"),
    "numpy run": (Calls(numpy.testing.rundocs, "FLAG"), r"numpy\.testing.*\.rundocs"),
    "codecs": (Calls(codecs.open, "FLAG", "w"), r"codecs\.open"),
    "encoding": (Calls(codecs.encode, "FLAG", "rot13"), r"text in the encoding 'rot13'"),
    "path": (Path("FLAG"), r"pathlib.*\.PosixPath"),
    "tensor": (torch.zeros(2), r"torch\._utils\._rebuild_tensor_v2"),
    "class": (collections.Counter("ab"), r"collections\.Counter"),
    "objects": (np.array([Calls(os.system, "touch FLAG")], object), r"posix\.system|array of Python objects"),
    "numbers as objects": (np.array([1, "a"], object), r"array of Python objects"),
    "records": (np.zeros(2, [("a", "f4"), ("b", "O")]), r"array of dtype"),
    "dates": (np.zeros(2, "M8[s]"), r"array of dtype"),
    "masked": (np.ma.zeros(2), r"numpy\.ma"),
    "matrix": (np.zeros(2).view(np.recarray), r"numpy.*rec"),
    "type": (dict, r"(builtins|__builtin__)\.dict"),
    "set type": (set, r"a class or function as a value"),
    "array key": ({Calls(np.dtype, "f4"): 1}, r"as a key"),
    "many bytes": (Calls(bytearray, 10**15), r"a bytearray of a int"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_anything_else_is_refused_by_name_and_not_run(
    load: Callable[[bytes], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    value, named = ATTACKS[attack]
    with pytest.raises(DataError, match=rf"data\.pkl: holds .*({named}).*nothing of it was run"):
        load(pickle.dumps({"qpos_mean": np.zeros(2), "x": [value]}, protocol))
    assert not (tmp_path / "FLAG").exists()


def handmade(name: str, *after: bytes) -> bytes:
    """A protocol 2 pickle that loads one global, "module name", and goes on by hand."""
    return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + b"".join(after) + b"."


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (handmade("numpy.f2py f2py2e.run_main"), r"holds numpy\.f2py\.f2py2e\.run_main"),
        (handmade("numpy __class__"), r"holds numpy\.__class__"),
        (handmade("numpy dtype.__class__"), r"holds numpy\.dtype\.__class__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0cos.__class__\x93.", r"holds numpy\.os\.__class__"),
        (b"\x80\x02U\x03uidQ.", "a reference to something outside the file"),
        (b"P12\n.", "a reference to something outside the file"),
        (b"\x80\x04\x8c\x02\x1b[\x8c\x02\nx\x93.", r"holds \\x1b\[\.\\nx, expected"),
        (b"\x80\x02\x82\x01.", "not a whole pickle"),  # the registry of extensions
        (b"\x80\x05\x97.", "not a whole pickle"),  # a buffer that nobody brought
        (b"", "not a whole pickle"),
        (b"no pickle", "not a whole pickle"),
        (pickle.dumps(STATISTICS)[:-40], "not a whole pickle"),
    ],
)
def test_handmade_and_broken_files_are_refused(load: Callable[[bytes], Any], pickled: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        load(pickled)


def test_extensions_that_the_process_knows_are_not_called(
    load: Callable[[bytes], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python keeps those it has seen, and gives them to every unpickler without asking for a class."""
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension(os.mkdir.__module__, "mkdir", 240)
    try:
        assert pickle.loads(pickle.dumps(os.mkdir, 2)) is os.mkdir
        with pytest.raises(DataError, match=r"not a whole pickle .*EXT1"):
            load(b"\x80\x02\x82\xf0X\x04\0\0\0FLAG\x85R.")
    finally:
        copyreg.remove_extension(os.mkdir.__module__, "mkdir", 240)
    assert not (tmp_path / "FLAG").exists()


F4 = b"cnumpy\ndtype\nX\x02\0\0\0f4\x85R"
S0 = F4.replace(b"f4", b"S0")
FROM_BUFFER = b"cnumpy._core.numeric\n_frombuffer\n"
ORDER_C = b"X\x01\0\0\0C"

BOMBS: dict[str, tuple[bytes, str]] = {
    "index": (b"Nr\xff\xff\x0f\0.", r"not a whole pickle .*kept under 1048575 after 2 operations"),
    "written index": (b"Np1048575\n.", r"not a whole pickle .*kept under 1048575 after 2 operations"),
    "claimed bytes": (b"\x8e" + (10**11).to_bytes(8, "little") + b"abc.", r"not a whole pickle"),
    "deep key": (b"})" + b"\x85" * 1_000_000 + b"Ns.", r"holds a tuple of more than 10000 tuples"),
    # with operations in between that change nothing
    "deep key, hidden": (b"})" + b"Nb(e\x85" * 20_000 + b"Ns.", r"holds a tuple of more than 10000 tuples"),
    "wide key": (b"})" + b"2\x86" * 60 + b"Ns.", r"holds a tuple of more than 10000 tuples"),
    "wide key, kept": (b"})" + b"q\x00h\x00\x86" * 60 + b"Ns.", r"holds a tuple of more than 10000 tuples"),
    "wide key, kept in order": (
        b"})\x94h\x00\x86" + b"2\x86" * 60 + b"Ns.",
        r"holds a tuple of more than 10000 tuples",
    ),
    "deep list": (b"]" * 100_000 + b"a" * 99_999 + b".", r"holds containers within themselves or too deep"),
    "list in itself": (b"]q\x00h\x00a.", r"holds containers within themselves or too deep"),
    "texts of no bytes": (
        FROM_BUFFER + b"(C\x00" + S0 + b"\x8a\x05\0\x28\x6b\xee\0\x85" + ORDER_C + b"tR.",
        r"not a whole pickle .*0 bytes for an array of shape \(4000000000,\)",
    ),
    # their product would take hours, and all of the memory
    "huge sides": (
        FROM_BUFFER + b"(C\x00" + F4 + b"(\x8b\x20\x4e\0\0" + b"\x7f" * 20_000 + b"2" * 3000 + b"t" + ORDER_C + b"tR.",
        r"not a whole pickle",
    ),
    "many sides": (FROM_BUFFER + b"(C\x00" + F4 + b"(" + b"K\x00" * 65 + b"t" + ORDER_C + b"tR.", r"array of shape"),
    # an array of protocol 5 that is told once more what it holds
    "told twice": (
        FROM_BUFFER + b"(C\x04abcd" + F4 + b"K\x01\x85" + ORDER_C + b"tR(K\x01K\x02\x85" + F4 + b"\x89C\x07abcdefgtb.",
        r"7 bytes for an array of shape",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_would_fill_the_memory_or_overrun_the_stack_is_refused(load: Callable[[bytes], Any], bomb: str) -> None:
    operations, reason = BOMBS[bomb]
    with pytest.raises(DataError, match=reason):
        load(b"\x80\x04" + operations)


@pytest.mark.parametrize(
    "before_and_after",
    [
        (b"cnumpy\ndtype\n", b"\x85R."),
        (F4 + b"(K\x03", b"NNNtb."),
        (b"c_codecs\nencode\nX\0\0\0\0", b"\x86R."),
        (FROM_BUFFER + b"(C\x00" + F4, ORDER_C + b"tR."),
    ],
    ids=["code", "state", "encoding", "shape"],
)
def test_messages_stay_short_whatever_a_file_holds(
    load: Callable[[bytes], Any], before_and_after: tuple[bytes, bytes]
) -> None:
    before, after = before_and_after
    # each list holds the one before it twice
    doubled = b"]\x94" + b"".join(b"0](h%ch%ce\x94" % (number, number) for number in range(18))
    with pytest.raises(DataError) as caught:
        load(b"\x80\x04" + before + doubled + after)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "name", ["numpy dtype", "numpy ndarray", "numpy._core.multiarray _reconstruct", "collections OrderedDict"]
)
def test_a_file_cannot_change_how_the_next_one_is_read(load: Callable[[bytes], Any], name: str) -> None:
    """BUILD sets attributes of what is on the stack; here on the stand-ins, of names that would matter."""
    for attribute in ("__call__", "__init__", "__setstate__", "__defaults__", "__class__", "update"):
        state = (None, {attribute: (1, 2)})
        with pytest.raises(DataError):
            load(handmade(name, pickle.dumps(state, 2)[2:-1], b"b"))
    assert same(load(pickle.dumps(STATISTICS, 2)), STATISTICS)


def reconstructed(state: Any) -> bytes:
    """An array that is told `state`; a dtype in it is written as ("dtype", code, state)."""

    class Array:
        def __reduce__(self) -> Any:
            from numpy._core.multiarray import _reconstruct

            return _reconstruct, (np.ndarray, (0,), b"b"), state

    return pickle.dumps(Array(), 2)


class Dtype:
    """A dtype whose state is not what numpy would write."""

    def __init__(self, code: str, *state: Any) -> None:
        self._code, self._state = code, state

    def __reduce__(self) -> Any:
        return np.dtype, (self._code, False, True), self._state


PLAIN = (3, "<", None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ((1, (2,), Dtype("f4", *PLAIN), False, b"\0" * 7), "7 bytes for an array of shape"),
        ((1, (2,), Dtype("f4", *PLAIN), False, b"\0" * 4000), "4000 bytes for an array of shape"),
        ((1, (-1,), Dtype("f4", *PLAIN), False, b""), "an array of shape"),
        ((1, (2.0,), Dtype("f4", *PLAIN), False, b"\0" * 8), "an array of shape"),
        ((1, (1,), Dtype("O8", 3, "|", None, None, None, -1, -1, 63), False, b"\1" * 8), "array of Python objects"),
        # plain bytes that a flag, or fields, would make into pointers
        ((1, (1,), Dtype("V8", 3, "|", None, None, None, 8, 1, 63), False, b"\1" * 8), "array of dtype 'V8'"),
        ((1, (1,), Dtype("f8", 3, "<", None, ("a",), {"a": (np.dtype("f4"), 0)}, 8, 1, 63), False, b"\1" * 8), "dtype"),
        ((1, (1,), Dtype("f8", 3, "<", (np.dtype("f8"), (9,)), None, None, 8, 1, 0), False, b"\1" * 8), "dtype"),
        ((1, (1,), "f8", False, b"\1" * 8), "an array of something else than bytes"),
        ((1, (1,), Dtype("f8", *PLAIN), False, [1.0]), "an array of something else than bytes"),
        (None, "an array without values"),
    ],
)
def test_arrays_that_lie_about_themselves_are_refused(load: Callable[[bytes], Any], state: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        load(reconstructed(state))


def test_flags_of_a_dtype_are_not_believed(load: Callable[[bytes], Any]) -> None:
    """Plain numbers whose dtype says that they are references to objects stay plain numbers."""
    got = load(reconstructed((1, (1,), Dtype("i8", 3, "<", None, None, None, -1, -1, 63), False, b"\1" * 8)))
    assert same(got, np.array([0x0101010101010101], "<i8"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.pkl: cannot be read"):
        load_restricted(tmp_path / "none.pkl")
