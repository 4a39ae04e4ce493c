"""Tables in HTML, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any


def html_table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[Any]], notes: Sequence[str] = ()
) -> str:
    """A small HTML table with a caption above and notes below; all text is escaped."""

    def line(cells: Sequence[Any], tag: str) -> str:
        shown = (f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)
        return f"<tr>{''.join(shown)}</tr>"

    head = [f"<thead>{line(header, 'th')}</thead>"] if header else []
    body = "".join(line(row, "td") for row in rows)
    parts = [f"<table><caption>{html.escape(caption)}</caption>", *head]
    parts.append(f"<tbody>{body}</tbody></table>")
    parts += [f"<p>{html.escape(note)}</p>" for note in notes]
    return "".join(parts)
