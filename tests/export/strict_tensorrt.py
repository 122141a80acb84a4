"""TensorRT's real Python bindings, without TensorRT: every call is held against what they declare.

The wheel ``tensorrt-cu13-bindings`` is the Python half only. With stand-ins for the libraries it
imports, and its classes, enum members and signatures can be read, but nothing can be run. So a
double of each class is made from the class itself: an attribute that the class lacks raises, an
argument that no signature takes raises, a property that cannot be set raises; what is allowed is
recorded and answered with a value of the declared type.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

WHEEL = "tensorrt_bindings"
#: Symbols that TensorRT exports, among all that the bindings leave open.
EXPORTED = re.compile(r"^(create\w+_INTERNAL|get\w*(Registry|Version)|initLibNvInferPlugins)$")
SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((?P<arguments>.*)\) -> (?P<answer>.+)$")
ARGUMENT = re.compile(r"(\w+): ((?:[^,\[]|\[[^\]]*\])+)")
#: Classes whose objects only the library can make.
MADE_BY_THE_LIBRARY = ("Builder", "OnnxParser", "Runtime")

#: Answers that the caller's way depends on; every other is the first value of its type.
ANSWERS: dict[tuple[str, str], object] = {
    ("INetworkDefinition", "num_inputs"): 1,
    ("ITensor", "name"): "image",
    ("ITensor", "shape"): (-1, 1, 128, 128),
    ("ITensor", "is_shape_tensor"): False,
    ("EngineInspector", "get_engine_information"): '{"Layers": []}',
}


class HostMemory(bytes):
    """What TensorRT hands back as ``IHostMemory``."""

    def __enter__(self) -> HostMemory:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Recorded:
    """What was called: ``(class, method or property, arguments by name)``."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, object]]] = []

    def of(self, kind: str, name: str) -> list[dict[str, object]]:
        return [given for one, called, given in self.calls if (one, called) == (kind, name)]


def load_bindings(folder: Path) -> ModuleType:
    """Import the wheel with stand-ins for its libraries; skip where that cannot be."""
    spec = find_spec(WHEEL)
    compiler = shutil.which("cc") or shutil.which("gcc")
    reader = shutil.which("nm"), shutil.which("readelf")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the wheel tensorrt-cu13-bindings is not installed")
    if compiler is None or None in reader:
        pytest.skip("no C compiler to build stand-in libraries with")
    library = next(Path(next(iter(spec.submodule_search_locations))).glob("tensorrt*.so"))
    source = folder / "stand_in.c"
    names = sorted({name for name in _undefined(library) if EXPORTED.match(name)})
    assert names
    source.write_text("".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in names))
    for needed in _needed(library):
        path = folder / needed
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-Wl,-soname,{needed}", "-o", path, source], check=True
        )
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module(WHEEL)


def _undefined(library: Path) -> Iterator[str]:
    answer = subprocess.run(
        [shutil.which("nm") or "", "-D", "--undefined-only", library],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in answer.stdout.splitlines():
        yield line.split()[-1].partition("@")[0]


def _needed(library: Path) -> list[str]:
    answer = subprocess.run(
        [shutil.which("readelf") or "", "-d", library], capture_output=True, text=True, check=True
    )
    # The parser needs the library of networks: the order in which they are listed is turned round.
    return list(reversed(re.findall(r"\[(libnv\w+\.so\.\d+)\]", answer.stdout)))


def strict_module(real: ModuleType, recorded: Recorded) -> ModuleType:
    """Return a module like `real` whose library-made objects are strict doubles."""
    module = ModuleType("tensorrt")
    vars(module).update({name: value for name, value in vars(real).items() if name[:2] != "__"})
    vars(module)["__version__"] = real.__version__
    factory = Factory(real, recorded)
    for name in MADE_BY_THE_LIBRARY:
        vars(module)[name] = factory.double(name)
    vars(module)["init_libnvinfer_plugins"] = lambda *_: True
    return module


class Factory:
    """Makes doubles of the classes of a module."""

    def __init__(self, real: ModuleType, recorded: Recorded) -> None:
        self.real = real
        self.recorded = recorded
        self._doubles: dict[str, type] = {}

    def double(self, name: str) -> type:
        """Return the double of a class."""
        if name not in self._doubles:
            self._doubles[name] = type(
                name, (Strict,), {"_factory": self, "_real": getattr(self.real, name)}
            )
        return self._doubles[name]

    def bind(
        self, doc: str, given: Sequence[object], named: dict[str, object]
    ) -> tuple[dict[str, object], str]:
        """Return the arguments by name and the declared answer, by the first signature that fits.

        Raises
        ------
        TypeError
            None fits.
        """
        found = [match for line in doc.splitlines() if (match := SIGNATURE.match(line.strip()))]
        declared = [match for match in found if "*args" not in match["arguments"]]
        assert declared, f"no signature is declared: {doc!r}"
        for match in declared:
            arguments = dict(zip(_names(match), given, strict=False)) | named
            if len(given) <= len(_names(match)) and self._fits(match["arguments"], arguments):
                return arguments, match["answer"]
        raise TypeError(f"{given} {named} fits none of {[match.group() for match in declared]}")

    def _fits(self, declared: str, arguments: dict[str, object]) -> bool:
        wanted = {name: kind for name, kind in ARGUMENT.findall(declared) if name != "self"}
        optional = {name for name in wanted if re.search(rf"\b{name}: .*?=", _only(declared, name))}
        return (
            arguments.keys() <= wanted.keys()
            and wanted.keys() - optional <= arguments.keys()
            and all(self._is(value, wanted[name]) for name, value in arguments.items())
        )

    def _is(self, value: object, declared: str) -> bool:
        kind = _kind(declared)
        if value is None:
            return "None" in declared
        match kind:
            case "str" | "bool":
                return isinstance(value, str if kind == "str" else bool)
            case "SupportsInt" | "int":
                return hasattr(value, "__int__")
            case "Buffer" | "buffer":
                return isinstance(value, bytes | bytearray | memoryview)
            case "Dims":
                return all(isinstance(size, int) for size in value)  # type: ignore[attr-defined]  # any iterable will do
        cls = getattr(self.real, kind)
        return isinstance(value, (cls, self.double(kind)))

    def answer(self, owner: str, name: str, declared: str) -> object:
        """Return a value of the declared type."""
        if (owner, name) in ANSWERS:
            return ANSWERS[owner, name]
        kind = _kind(declared)
        simple: dict[str, object] = {
            "None": None, "bool": True, "int": 0, "str": "", "float": 0.0,
            "IHostMemory": HostMemory(b"a plan"), "object": HostMemory(b"a plan"),
        }  # fmt: skip
        if kind in simple:
            return simple[kind]
        cls = getattr(self.real, kind)
        members = getattr(cls, "__members__", None)
        return next(iter(members.values())) if members else self.double(kind)._new()  # type: ignore[attr-defined]  # of Strict


def _kind(declared: str) -> str:
    """Return the last word of a type, without default: C++ or Python, with its module."""
    return re.split(r"\.|::", declared.partition("=")[0].strip())[-1]


def _names(match: re.Match[str]) -> list[str]:
    return [name for name, _ in ARGUMENT.findall(match["arguments"]) if name != "self"]


def _only(declared: str, name: str) -> str:
    return next(f"{one}: {kind}" for one, kind in ARGUMENT.findall(declared) if one == name)


class Strict:
    """An object of a class that only the library could make."""

    _factory: Factory
    _real: Any

    def __init__(self, *given: object, **named: object) -> None:
        arguments, _ = self._factory.bind(self._real.__init__.__doc__, given, named)
        self._record("__init__", arguments)

    @classmethod
    def _new(cls) -> Strict:
        return object.__new__(cls)

    def _record(self, name: str, arguments: dict[str, object]) -> None:
        self._factory.recorded.calls.append((self._real.__name__, name, arguments))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of whatever type is declared
        found = getattr(self._real, name)
        owner = self._real.__name__
        if isinstance(found, property):
            match = SIGNATURE.match(f"get{(found.fget.__doc__ or '').strip()}")
            declared = match["answer"] if match else "object"
            return self._factory.answer(owner, name, declared)

        def call(*given: object, **named: object) -> object:
            arguments, declared = self._factory.bind(found.__doc__, given, named)
            self._record(name, arguments)
            return self._factory.answer(owner, name, declared)

        return call

    def __setattr__(self, name: str, value: object) -> None:
        found = getattr(self._real, name)
        if not isinstance(found, property) or found.fset is None:
            raise AttributeError(f"{self._real.__name__}.{name} cannot be set")
        self._factory.bind(f"set{(found.fset.__doc__ or '').strip()}", (self, value), {})
        self._record(name, {"value": value})

    def __len__(self) -> int:
        assert hasattr(self._real, "__len__")
        return 0

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def __enter__(self) -> Strict:
        return self

    def __exit__(self, *_: object) -> None:
        pass
