"""What Python source uses of TensorRT, resolved against real bindings: classes, members, keywords, overridden methods.

The names ``tensorrt`` and ``trt`` are the module. The class of every other value follows from its constructor, from an
annotation (``builder: trt.Builder``), or from what NVIDIA's own docstring says a method returns. A value of TensorRT
whose class cannot be told must not be used: that is a finding, too, so that nothing is left out unseen.

What is reached for the other of NVIDIA's two libraries alone is left out, see ``one_library``.

Run as a program, in a process of its own for each version: ``tensorrt_names.py WHEEL STUBS < sources.json``.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import inspect
import json
import re
import sys
from collections import ChainMap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.one_library import reached

RTX = "tensorrt_rtx_bindings"
MODULE_NAMES = ("tensorrt", "trt")
_PLAIN = re.compile(
    r"(int|bool|str|float|bytes|None|tuple|dict|capsule|numpy\.\w+|"
    r"(typing\.|collections\.abc\.)?([Ll]ist|[Tt]uple|Dict|Sequence)\[(int|str|bool|float)(, (int|str|bool|float))*\])"
)


@dataclass(frozen=True)
class Known:
    """A value: the module, a class, an object of a class, or something callable."""

    kind: str
    what: Any


class Unknown:
    """A value of TensorRT whose class cannot be told."""


UNKNOWN = Unknown()
Value = Known | Unknown | None  # None: nothing of TensorRT


@dataclass(frozen=True)
class Signature:
    """One way to call something; parameters without self."""

    names: tuple[str, ...]
    required: int
    returns: str | None

    def takes(self, positional: int, keywords: set[str]) -> bool:
        """Whether such a call is possible."""
        free = self.names[positional:]
        needed = set(self.names[positional : self.required])
        return positional <= len(self.names) and keywords <= set(free) and needed <= keywords


def signatures(function: Any) -> list[Signature]:  # noqa: ANN401
    """Of a function of the bindings, from its docstring; of one in Python, from itself."""
    if inspect.isfunction(function):
        parameters = inspect.signature(function).parameters.values()
        needed = sum(parameter.default is parameter.empty for parameter in parameters)
        return [Signature(tuple(parameter.name for parameter in parameters), needed, None)]
    found = re.findall(r"^(?:\d+\. )?\w+\((.*)\) -> (.+)$", function.__doc__ or "", re.MULTILINE)
    return [_signature(arguments, returns) for arguments, returns in found if "*args" not in arguments]


def _signature(arguments: str, returns: str) -> Signature:
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    parts = [part.strip() for part in parts if part.strip() and not part.strip().startswith("self")]
    names = tuple(part.split(":")[0].strip() for part in parts)
    return Signature(names, sum(" = " not in part for part in parts), returns.strip())


@dataclass
class Own:
    """A class of ours: what its attributes and methods hold or give."""

    members: dict[str, ast.expr | ast.FunctionDef | None] = field(default_factory=dict)


class Findings(ast.NodeVisitor):
    """Walks over modules and collects uses and problems."""

    def __init__(self, bindings: Any, trees: dict[str, ast.Module]) -> None:  # noqa: ANN401
        self.bindings = bindings
        self.uses: set[str] = set()
        self.problems: list[str] = []
        self._file = ""
        self._classes: dict[str, Own] = {}
        self._functions: dict[str, ast.FunctionDef] = {}
        for tree in trees.values():
            self._declarations(tree)
        for self._file, tree in trees.items():
            self._names: ChainMap[str, Value] = ChainMap({name: Known("module", bindings) for name in MODULE_NAMES})
            self.visit(tree)

    def _declarations(self, tree: ast.Module) -> None:
        """Returns of our functions, and attributes of our classes."""
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                self._functions[node.name] = node
            if isinstance(node, ast.ClassDef):
                own = self._classes.setdefault(node.name, Own())
                for inner in ast.walk(node):
                    if isinstance(inner, ast.FunctionDef):
                        own.members[inner.name] = inner
                    if isinstance(inner, ast.AnnAssign):
                        target = inner.target
                        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
                        own.members[name] = inner.annotation

    # What a node means.

    def value(self, node: ast.expr) -> Value:
        """Visit an expression and tell what it is."""
        method = getattr(self, f"_of_{type(node).__name__}", None)
        if method is not None:
            result: Value = method(node)
            return result
        found: Value = None
        children = sorted(ast.iter_child_nodes(node), key=lambda child: not isinstance(child, ast.comprehension))
        for child in children:
            if isinstance(child, ast.comprehension):
                self._bind(child.target, _inside(self.value(child.iter)))
                for condition in child.ifs:
                    self.value(condition)
            elif isinstance(child, ast.expr) and _foreign(self.value(child)):
                found = UNKNOWN  # inside a list, say: whatever is taken out again must be annotated
        return None if isinstance(node, (ast.Compare, ast.JoinedStr, ast.FormattedValue, ast.BinOp)) else found

    def _of_Name(self, node: ast.Name) -> Value:  # noqa: N802
        if node.id in self._names:
            return self._names[node.id]
        return Known("own class", node.id) if node.id in self._classes else None

    def _of_Attribute(self, node: ast.Attribute) -> Value:  # noqa: N802
        owner = self.value(node.value)
        if isinstance(owner, Unknown):
            self._problem(node, f".{node.attr} of a value whose class cannot be told; annotate it")
            return UNKNOWN
        if owner is None or owner.kind == "function":
            return None
        if not owner.kind.startswith("own"):
            return self._member(node, owner)
        member = self._classes[owner.what].members.get(node.attr)
        return self._annotated(member.returns if isinstance(member, ast.FunctionDef) else member)

    def _member(self, node: ast.Attribute, owner: Known) -> Value:
        name = f"{_name(owner)}.{node.attr}"
        self.uses.add(name)
        if node.attr not in dir(owner.what):
            self._problem(node, f"there is no {name}")
            return UNKNOWN
        found = getattr(owner.what, node.attr)
        if isinstance(found, type):
            return Known("class", found)
        if isinstance(found, property):
            setter = isinstance(node.ctx, ast.Store) and found.fset is None
            if setter:
                self._problem(node, f"{name} cannot be set")
            return self._returned(re.findall(r"-> (.+)$", (found.fget.__doc__ or "").strip())[:1])
        if callable(found):
            return Known("function", found)
        return Known("object", type(found)) if type(found).__module__.startswith(self.bindings.__name__) else None

    def _of_Call(self, node: ast.Call) -> Value:  # noqa: N802
        function = self.value(node.func)
        given = [self.value(argument) for argument in node.args]
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords}
        if isinstance(function, Known) and function.kind in {"class", "function"}:
            return self._called(node, function)
        ours = self._ours(node.func)
        if ours is not None:
            self._passed(node, ours, given, named)
        if isinstance(function, Known) and function.kind == "own class":
            return Known("own object", function.what)
        return self._annotated(ours.returns) if ours is not None else None

    def _ours(self, called: ast.expr) -> ast.FunctionDef | None:
        """The function or method of ours that is called."""
        if isinstance(called, ast.Name) and called.id in self._classes:
            return self._method(called.id, "__init__")
        if isinstance(called, ast.Name):
            return self._functions.get(called.id)
        owner = self.value(called.value) if isinstance(called, ast.Attribute) else None
        if isinstance(called, ast.Attribute) and isinstance(owner, Known) and owner.kind.startswith("own"):
            return self._method(owner.what, called.attr)
        return None

    def _method(self, owner: str, name: str) -> ast.FunctionDef | None:
        member = self._classes[owner].members.get(name)
        return member if isinstance(member, ast.FunctionDef) else None

    def _passed(self, node: ast.Call, ours: ast.FunctionDef, given: list[Value], named: dict[Any, Value]) -> None:
        """What is TensorRT's must be TensorRT's by annotation where it arrives, too."""
        arguments = [*ours.args.args, *ours.args.kwonlyargs]
        places = [argument for argument in arguments if argument.arg != "self"]
        arriving = {**dict(zip((place.arg for place in places), given, strict=False)), **named}
        for place in places:
            known = arriving.get(place.arg)
            if _foreign(known) and self._annotated(place.annotation) is None:
                self._problem(node, f"annotate {place.arg} of {ours.name}")

    def _called(self, node: ast.Call, function: Known) -> Value:
        callee = function.what.__init__ if function.kind == "class" else function.what
        known = signatures(callee)
        positional = len(node.args)
        if callee.__name__ == "__init__" and isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
            positional -= 1  # Base.__init__(self)
        keywords = {keyword.arg or "" for keyword in node.keywords}
        if known and not any(signature.takes(positional, keywords) for signature in known):
            self._problem(node, f"{ast.unparse(node)} does not fit {' or '.join(str(one.names) for one in known)}")
        if function.kind == "class":
            return Known("object", function.what)
        return self._returned([signature.returns for signature in known])

    def _returned(self, texts: list[str | None]) -> Value:
        """What docstrings say is given back, where they agree."""
        values = {_value_key(self._of_text(text)): self._of_text(text) for text in texts or [None]}
        return values.popitem()[1] if len(values) == 1 else UNKNOWN

    def _of_text(self, text: str | None) -> Value:
        if text is None or re.fullmatch(_PLAIN, text):
            return None
        found = re.fullmatch(r"tensorrt(?:_rtx)?_bindings\.tensorrt(?:_rtx)?\.([\w.]+)", text)
        if found is None:
            return UNKNOWN
        what = self.bindings
        for part in found[1].split("."):
            what = getattr(what, part)
        return Known("object", what)

    def _annotated(self, annotation: ast.expr | None) -> Value:
        """The value that an annotation describes."""
        if isinstance(annotation, ast.BinOp):
            return self._annotated(annotation.left) or self._annotated(annotation.right)
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return self._annotated(ast.parse(annotation.value, mode="eval").body)
        if isinstance(annotation, ast.Name) and annotation.id in self._classes:
            return Known("own object", annotation.id)
        if isinstance(annotation, ast.Name) and annotation.id == "ModuleType":
            return Known("module", self.bindings)
        found = self.value(annotation) if annotation is not None else None
        return Known("object", found.what) if isinstance(found, Known) and found.kind == "class" else _inside(found)

    # Statements.

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == "tensorrt" and (alias.asname or alias.name) not in MODULE_NAMES:
                self._problem(node, f"import tensorrt as one of {MODULE_NAMES}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").split(".")[0] == "tensorrt":
            self._problem(node, "import tensorrt as a module, so that its uses can be told")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            known = self.value(base)
            if isinstance(known, Known) and known.kind == "class":
                self._overrides(node, known.what)
        self._names = self._names.new_child({"self": Known("own object", node.name)})
        self.generic_visit(node)
        self._names = self._names.parents

    def _overrides(self, node: ast.ClassDef, base: type) -> None:
        for method in (inner for inner in node.body if isinstance(inner, ast.FunctionDef) and inner.name[0] != "_"):
            self.uses.add(f"{base.__name__}.{method.name}")
            names = tuple(argument.arg for argument in method.args.args[1:])
            if names not in [signature.names for signature in signatures(getattr(base, method.name, None))]:
                self._problem(method, f"{base.__name__} has no {method.name}{names}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._names = self._names.new_child()
        for argument in (*node.args.args, *node.args.kwonlyargs):
            if argument.arg != "self":
                module = argument.arg in MODULE_NAMES
                known = Known("module", self.bindings) if module else self._annotated(argument.annotation)
                self._names[argument.arg] = known
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.value(default)
        for statement in node.body:
            self.visit(statement)
        self._names = self._names.parents

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        known = self._annotated(node.annotation)
        if node.value is not None:
            self.value(node.value)
        self._bind(node.target, known)

    def visit_Assign(self, node: ast.Assign) -> None:
        known = self.value(node.value)
        for target in node.targets:
            self._bind(target, known)

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, _inside(self.value(node.iter)))
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            known = self.value(item.context_expr)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, known)
        for statement in node.body:
            self.visit(statement)

    def generic_visit(self, node: ast.AST) -> None:
        """Statements of other kinds: look into their expressions."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)
            else:
                self.visit(child)

    def _bind(self, target: ast.expr, known: Value) -> None:
        if isinstance(target, ast.Name):
            self._names[target.id] = known
        elif isinstance(target, (ast.Tuple, ast.List)):
            for element in target.elts:
                self._bind(element, _inside(known))
        else:
            self.value(target)
            owner = target.value if isinstance(target, ast.Attribute) else None
            is_own = isinstance(owner, ast.Name) and owner.id == "self"
            if is_own and _foreign(known) and self.value(target) is None:
                self._problem(target, f"annotate {ast.unparse(target)}")

    def _problem(self, node: ast.expr | ast.stmt, text: str) -> None:
        self.problems.append(f"{self._file}:{node.lineno}: {text}")


def _foreign(value: Value) -> bool:
    """Of TensorRT, not of ours."""
    return isinstance(value, Unknown) or (value is not None and not value.kind.startswith("own"))


def _inside(value: Value) -> Value:
    """What comes out of a container or a tuple."""
    return UNKNOWN if _foreign(value) else None


def _name(owner: Known) -> str:
    return "tensorrt" if owner.kind == "module" else owner.what.__qualname__


def _value_key(value: Value) -> tuple[str, str]:
    return (value.kind, repr(value.what)) if isinstance(value, Known) else (type(value).__name__, "")


def fake_problems(bindings: Any, tree: ast.Module) -> list[str]:  # noqa: ANN401
    """Where a fake has what the bindings have not: classes named alike, public members, parameters."""
    problems = []
    for node in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"):
        real = getattr(bindings, node.name, None)
        for method in (inner for inner in node.body if isinstance(inner, ast.FunctionDef) and inner.name[0] != "_"):
            if not isinstance(real, type) or method.name not in dir(real):
                problems.append(f"there is no {node.name}.{method.name}")
                continue
            names = tuple(argument.arg for argument in method.args.args[1:])
            found = getattr(real, method.name)
            if not isinstance(found, property) and names not in [one.names[: len(names)] for one in signatures(found)]:
                problems.append(f"{node.name}.{method.name} does not take {names}")
    return problems


def load(wheel: Path, stubs: Path) -> Any:  # noqa: ANN401
    """NVIDIA's bindings: of TensorRT for RTX as installed, or unpacked ones of TensorRT, on libraries of nothing."""
    for library in sorted(stubs.iterdir()):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(wheel))
    return importlib.import_module(RTX if (wheel / RTX).is_dir() else "tensorrt_bindings")


def main() -> None:
    """Print what was found as JSON."""
    request = json.load(sys.stdin)
    bindings = load(Path(sys.argv[1]), Path(sys.argv[2]))
    jobs = {}
    for job, files in request["jobs"].items():
        trees = {name: ast.parse(text) for name, text in files.items()}
        found = Findings(bindings, reached(trees, builds_ahead=bindings.__name__ == RTX))
        jobs[job] = {"uses": sorted(found.uses), "problems": found.problems}
    fakes = {name: fake_problems(bindings, ast.parse(text)) for name, text in request["fakes"].items()}
    json.dump({"version": bindings.__version__, "jobs": jobs, "fakes": fakes}, sys.stdout)


if __name__ == "__main__":
    main()
