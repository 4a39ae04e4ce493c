"""One source that can only be iterated: its rows in order, and its state."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

from jaxmix._checks import need

ROWS_WITHOUT_BAR = 1000
"""The most rows that are skipped without a progress bar."""


class Ended(Exception):
    """Raised by a stream that has no more rows."""


class Stream:
    """The rows of an iterable, an iterator, or a function that returns one of them.

    `epoch` and `rows`: how often it was iterated to its end, and the rows taken after that.
    """

    def __init__(self, source: Any, name: str):
        can_iterate = hasattr(source, "__iter__") or hasattr(source, "as_numpy_iterator")
        wanted = "an iterable, or a function that returns one"
        need(can_iterate or callable(source), name, wanted, source, TypeError)
        need(not isinstance(source, str | bytes | dict), name, wanted, source, TypeError)
        self._source: Any = source
        self._name = name
        own = hasattr(source, "state_dict") and hasattr(source, "load_state_dict")
        self._has_state = own and not _has_buffer(source)
        self._begin = self._source.state_dict() if self._has_state else None
        self._iterator: Any = self._iterate()
        self._once = self._iterator is source
        self._held: list[Any] = []
        self.epoch = self.rows = 0

    def peek(self) -> Any:
        """The next row, without taking it."""
        if not self._held:
            before = self._iterator.get_state() if self._keeps_place() else None
            first = self._next()
            self.rows -= 1
            if before is not None:
                self._iterator.set_state(before)
            elif self._once:
                self._held = [first]
            else:
                self._restart()
            return first
        return self._held[0]

    def take(self, count: int, cycle: bool) -> list[Any]:
        """The next `count` rows; if it ends before them and does not cycle, none is taken."""
        taken: list[Any] = []
        epoch, rows = self.epoch, self.rows
        try:
            for _ in range(count):
                taken.append(self._next_of_any_epoch(cycle))
        except BaseException:
            self.give_back(taken, epoch, rows)
            raise
        return taken

    def give_back(self, taken: list[Any], epoch: int, rows: int) -> None:
        """Undo a `take` that began at this epoch and number of rows."""
        self._held = taken + self._held
        self.epoch, self.rows = epoch, rows

    def skip(self, count: int, cycle: bool) -> None:
        """Skip the next `count` rows, with a progress bar if they are many."""
        with _bar(count, f"skipping the rows of {self._name} that were used") as bar:
            for _ in range(count):
                self._next_of_any_epoch(cycle)
                bar.update()

    def state(self) -> dict[str, Any]:
        """The state of the stream, for JSON."""
        inner = None
        if not self._held and (self.rows or self.epoch):
            if self._keeps_place():
                inner = _to_json(self._iterator.get_state())
            elif self._has_state:
                inner = _to_json(self._source.state_dict())
        return {"epoch": self.epoch, "rows": self.rows, "inner": inner}

    def set_state(self, state: dict[str, Any], cycle: bool) -> None:
        """Restore a state; a stream without a state of its own skips the rows before it."""
        epoch, rows, inner = state["epoch"], state["rows"], state["inner"]
        if inner is not None and (self._has_state or self._keeps_place()):
            if self._has_state:
                self._source.load_state_dict(_from_json(inner))
                self._iterator = self._iterate()
            else:
                self._iterator.set_state(_from_json(inner))
            self._held, self.epoch, self.rows = [], epoch, rows
            return
        if self._once and not self._keeps_place():
            ahead = epoch == self.epoch and rows >= self.rows
            wanted = "an iterable, or a function that returns an iterator, to go back in it"
            need(ahead, self._name, wanted, f"an iterator at row {self.rows}")
            self.skip(rows - self.rows, False)
            return
        self._restart()
        self.epoch = epoch
        self.skip(rows, cycle)

    def _next_of_any_epoch(self, cycle: bool) -> Any:
        try:
            return self._next()
        except Ended:
            if not cycle:
                raise
        wanted = "an iterable, or a function that returns an iterator, for on_end 'cycle'"
        need(not self._once, self._name, wanted, "an iterator, which has ended")
        need(self.rows > 0, self._name, "of at least one row", "none")
        epoch = self.epoch + 1
        self._restart()
        self.epoch = epoch
        return self._next_of_any_epoch(cycle)

    def _next(self) -> Any:
        if self._held:
            row = self._held.pop(0)
        else:
            try:
                row = next(self._iterator)
            except StopIteration:
                raise Ended from None
        self.rows += 1
        return row

    def _restart(self) -> None:
        """Iterate from the start, as in the first epoch."""
        if self._has_state:
            self._source.load_state_dict(self._begin)
        self._iterator, self._held = self._iterate(), []
        self.epoch = self.rows = 0

    def _iterate(self) -> Iterator[Any]:
        if hasattr(self._source, "as_numpy_iterator"):  # tf.data
            return self._source.as_numpy_iterator()
        can_iterate = hasattr(self._source, "__iter__")
        return iter(self._source if can_iterate else self._source())

    def _keeps_place(self) -> bool:
        """True for an iterator with a state, such as grain's."""
        return hasattr(self._iterator, "get_state") and hasattr(self._iterator, "set_state")


def _has_buffer(source: Any) -> bool:
    """True for a HuggingFace stream with a shuffle buffer, whose rows its own state leaves out."""
    parts: list[Any] = [getattr(source, "_ex_iterable", None)]
    while parts:
        part = parts.pop()
        if "BufferShuffled" in type(part).__name__:
            return True
        parts += [part.ex_iterable] if hasattr(part, "ex_iterable") else []
        parts += getattr(part, "ex_iterables", [])
    return False


def _to_json(state: Any) -> Any:
    return {"bytes": base64.b64encode(state).decode()} if isinstance(state, bytes) else state


def _from_json(state: Any) -> Any:
    is_bytes = isinstance(state, dict) and state.keys() == {"bytes"}
    return base64.b64decode(state["bytes"]) if is_bytes else state


class _NoBar:
    def update(self) -> None:
        pass


@contextlib.contextmanager
def _bar(total: int, text: str) -> Iterator[Any]:
    """A progress bar, if there are many rows, a terminal and tqdm."""
    if total <= ROWS_WITHOUT_BAR or importlib.util.find_spec("tqdm") is None:
        yield _NoBar()
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=text, unit="row", disable=None, delay=1.0) as bar:
        yield bar
