"""Words of others on a terminal: whoever sent a file may have put commands into its name."""

from __future__ import annotations

from rich.markup import escape


def shown(text: str) -> str:
    r"""Return a text as rich markup that shows each of its characters and obeys none.

    Examples
    --------
    >>> shown("[bold]scan\x1b[2J")
    '\\[bold]scan\\x1b[2J'
    """
    return escape("".join(one if one.isprintable() else repr(one)[1:-1] for one in text))
