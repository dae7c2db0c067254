"""Text from outside as data: names of files and parts, messages, errors of cameras.

Nothing of it may steer a terminal, begin a line of a log, or run in a spreadsheet.
"""

from __future__ import annotations

_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet computes; the full-width forms as well."""
_LONGEST = 15  # digits that a float64 keeps


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


def counted(count: int, noun: str, separator: str = "") -> str:
    """The count with its noun: ``1 image``, ``2248 images``, ``2,248 entries``.

    Args:
        count: 0 or more.
        noun: For one.
        separator: Of thousands; none for what programs read.
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:{separator}} {noun[:-1]}ies" if noun.endswith("y") else f"{count:{separator}} {noun}s"


def rounded(value: float, digits: int) -> str:
    """The value with this many significant digits, and never as 1e+02: ``100``, ``0.0123``, ``2,400,000``."""
    return f"{float(f'{value:.{digits}g}'):,.{_LONGEST}g}"


def _is_formula(text: str) -> bool:
    """Also behind apostrophes, so that undoing one never uncovers more."""
    return text.lstrip("'").startswith(_FORMULA)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
