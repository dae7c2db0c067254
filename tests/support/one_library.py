"""What source does for one of NVIDIA's two libraries: TensorRT, or TensorRT for RTX, which builds ahead of time.

``Library.builds_ahead`` decides in an ``if``, in ``... if ... else ...``, or in an ``if`` that leaves a function. What
is called from branches for the other library alone is for the other library, too.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter

_DECIDES = "builds_ahead"


def reached(trees: dict[str, ast.Module], *, builds_ahead: bool) -> dict[str, ast.Module]:
    """The modules without what is not reached for this library."""
    kept = {name: _Decided(builds_ahead=builds_ahead).visit(copy.deepcopy(tree)) for name, tree in trees.items()}
    before, now = _names(trees), _names(kept)
    while lost := {name for name in before if not now[name]}:
        kept = {name: _Without(lost).visit(tree) for name, tree in kept.items()}
        before, now = now, _names(kept)
    return kept


def _names(trees: dict[str, ast.Module]) -> Counter[str]:
    """How often each name is read."""
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    return Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for node in nodes
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load)
    )


def _decision(test: ast.expr) -> bool | None:
    """Which of the libraries a condition asks for; None if it is about something else."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _decision(test.operand)
        return None if inner is None else not inner
    return True if isinstance(test, ast.Attribute) and test.attr == _DECIDES else None


class _Decided(ast.NodeTransformer):
    """Takes the branch of one library, and drops what follows where that branch leaves the function."""

    def __init__(self, *, builds_ahead: bool) -> None:
        self._builds_ahead = builds_ahead

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Keep one branch."""
        self.generic_visit(node)
        asked = _decision(node.test)
        if asked is None:
            return node
        return node.body if asked == self._builds_ahead else node.orelse

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """Keep one value."""
        self.generic_visit(node)
        asked = _decision(node.test)
        if asked is None:
            return node
        return node.body if asked == self._builds_ahead else node.orelse

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Cut the body behind a return that is always reached now."""
        self.generic_visit(node)
        ends = [number for number, each in enumerate(node.body) if isinstance(each, (ast.Return, ast.Raise))]
        node.body = node.body[: ends[0] + 1] if ends else node.body or [ast.Pass()]
        return node


class _Without(ast.NodeTransformer):
    """Drops functions and classes of these names."""

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        """Drop it, or look inside."""
        return None if node.name in self._names else self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST | None:
        """As a function."""
        return None if node.name in self._names else self.generic_visit(node)
