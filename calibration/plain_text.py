"""Text from outside as data: names of files and parts, messages, errors of cameras.

Nothing of it may steer a terminal, begin a line of a log, or run in a spreadsheet.
"""

from __future__ import annotations

_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet computes; the full-width forms as well."""


def printable(text: str, keep: str = "") -> str:
    """The text with a backslash escape for each character that does not print.

    Escaped are control characters (C0, DEL, C1), line and paragraph separators, marks of the writing direction and
    other invisible ones, and the bytes of file names that are not UTF-8.

    Args:
        text: Any text.
        keep: Characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else _escaped(each) for each in text)


def spreadsheet_cell(text: str) -> str:
    """Printable text that a spreadsheet shows and does not compute; `from_spreadsheet_cell` undoes it."""
    shown = printable(text)
    return f"'{shown}" if _is_formula(shown) else shown


def from_spreadsheet_cell(cell: str) -> str:
    """The text of a cell that `spreadsheet_cell` made."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    """Also behind apostrophes, so that undoing one never uncovers more."""
    return text.lstrip("'").startswith(_FORMULA)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
