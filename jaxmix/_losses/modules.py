"""Flax NNX modules among the arguments of a loss: their arrays, and the values that it changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix._checks import need
from jaxmix._types import Array, PyTree

Changes = Callable[[str], dict[int, Array]]
"""`changes(name)`: the leaves that a loss, called `name` in messages, changed, by their number."""


class Arguments:
    """The arguments of a loss as `leaves`; those of NNX modules and variables come last.

    A module or variable that occurs in several places is counted once.
    """

    def __init__(self, args: tuple[PyTree, ...]) -> None:
        outer, self._structure = jax.tree.flatten(args, is_leaf=_is_node)
        self._is_node = [_is_node(leaf) for leaf in outer]
        self._nodes = [leaf for leaf in outer if _is_node(leaf)]
        plain = [leaf for leaf in outer if not _is_node(leaf)]
        self._graph, self._paths, items = _split(self._nodes)
        variables, self._variables = jax.tree.flatten(items)
        # The variable to which each of the last leaves belongs.
        self._owners = [k for k, item in enumerate(items) for _ in jax.tree.leaves(item)]
        self._first = len(plain)
        self.leaves = plain + [_as_array(leaf) for leaf in variables]

    def build(self, leaves: list[Any]) -> tuple[tuple[PyTree, ...], Changes]:
        """The arguments made of these leaves, and a function that finds what a loss changed."""
        before = leaves[self._first :]
        nodes = _merge(self._graph, self._paths, self._variables.unflatten(before))
        plain, modules = iter(leaves[: self._first]), iter(nodes)
        outer = [next(modules if is_node else plain) for is_node in self._is_node]

        def changes(name: str) -> dict[int, Array]:
            graph, _, items = _split(nodes)
            after, variables = jax.tree.flatten(items)
            same = graph == self._graph and variables == self._variables
            kept = "a function that changes only values of variables in a module"
            need(same, name, kept, "another attribute or variable", TypeError)
            changed = {}
            for i, (old, new) in enumerate(zip(before, after, strict=True)):
                if new is old:
                    continue
                owner, new = self._owners[i], _as_array(new)
                before_type, got = jax.typeof(old).str_short(), jax.typeof(new).str_short()
                label = f"{self._paths[owner]} of the modules after {name}"
                is_variable = isinstance(items[owner], _nnx().Variable)
                need(is_variable, label, "unchanged, since it is not an nnx.Variable", got)
                need(before_type == got, label, f"{before_type}, as before", got)
                changed[self._first + i] = new
            return changed

        return self._structure.unflatten(outer), changes

    def store(self, changed: dict[int, Array]) -> None:
        """Write changed leaves into the variables that were passed."""
        variables = self.leaves[self._first :]
        for i, leaf in changed.items():
            variables[i - self._first] = leaf
        items = self._variables.unflatten(variables)
        found = dict(_nnx().iter_graph(self._nodes, graph=True)) if changed else {}
        for owner in {self._owners[i - self._first] for i in changed}:
            found[self._paths[owner]].set_raw_value(items[owner].get_raw_value())


def _nnx() -> Any:
    """`flax.nnx` if it was imported, else None. It loads slowly, and modules can't exist before."""
    return sys.modules.get("flax.nnx")


def _is_node(value: Any) -> bool:
    return _nnx() is not None and isinstance(value, _nnx().Pytree | _nnx().Variable)


def _split(nodes: list[Any]) -> tuple[Any, list[Any], list[Any]]:
    """The graph, and the paths and the variables of modules."""
    if not nodes:
        return None, [], []
    graph, state = _nnx().split(nodes, graph=True)
    flat = list(_nnx().to_flat_state(state))
    return graph, [path for path, _ in flat], [item for _, item in flat]


def _merge(graph: Any, paths: list[Any], items: list[Any]) -> list[Any]:
    if graph is None:
        return []
    state = _nnx().from_flat_state(zip(paths, items, strict=True))
    return _nnx().merge(graph, state)


def _as_array(leaf: Any) -> Array:
    ok = isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float)
    need(ok, "a variable of a module", "an array", leaf, TypeError)
    return jnp.asarray(leaf)
