"""Tables as a notebook shows them."""

import html
from collections.abc import Sequence


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in HTML; names are escaped, and cells do not break into lines."""
    style = ' style="white-space: nowrap; text-align: left; padding-right: 1em"'
    head = "".join(f"<th{style}>{html.escape(name)}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td{style}>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
