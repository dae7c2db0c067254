"""The address of a camera as it may be shown: scheme, host and path, without anything that may be secret.

Passwords stand before the host, in the query, in the path (``/user=admin&password=...``) and in the properties of
pipelines, and users write them unescaped. Where it is not certain which part is the host, neither part is shown.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from urllib.parse import urlsplit

HIDDEN = "***"
_URL = re.compile(r"\s*([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
# What may begin a query, a fragment, or names and passwords inside a path; also percent-encoded.
_NOT_OF_PATH = re.compile(r"[?#=&;:]|%(23|26|3[abdf])", re.IGNORECASE)
_HARMLESS_VALUE = re.compile(r"(\(\w+\))?(\d[\d./:]*|true|false|/dev/[\w/.-]+)", re.IGNORECASE)
_SECRET_KEY = re.compile(r"pass|pw|pin|user|auth|secret|token|key|cookie|header|login|cred", re.IGNORECASE)
_ELEMENT = re.compile(r"!|\w+/[\w.+-]+(\([\w:]+\))?|[A-Za-z][\w-]*\.?")


def without_password(source: str) -> str:
    """The source for logs and messages: an address, a pipeline, a path or a device number."""
    if url := _URL.fullmatch(source):
        return f"{url[1]}://{_shown_address(url[2])}"
    if " ! " in source:
        return _shown_pipeline(source)
    path = re.sub(r"[^/]*:.*@", f"{HIDDEN}@", source, flags=re.DOTALL)  # an address without its scheme
    return re.sub(r"\?.*=.*", f"?{HIDDEN}", path, flags=re.DOTALL)


def without_passwords(text: str) -> str:
    """A text with every address in it as `without_password` shows it."""
    return re.sub(r"[a-z][a-z0-9+.-]*://\S+", lambda address: without_password(address[0]), text, flags=re.IGNORECASE)


def _shown_address(address: str) -> str:
    """What follows ``://``: host, port and path."""
    authority, rest = _split_host(address)
    _, at, host = authority.rpartition("@")
    if "@" in rest and not _is_surely_host(host, has_user=bool(at)):
        # A password with a slash, or a path with an @. A query may hold both.
        before, _, host_and_path = rest.rpartition("@")
        if re.search(r"[?#]", before):
            return HIDDEN
        at, (host, rest) = "@", _split_host(host_and_path)
    if not _is_host(host):
        return HIDDEN
    return f"{HIDDEN}@{host}{_shown_path(rest)}" if at else f"{host}{_shown_path(rest)}"


def _split_host(text: str) -> tuple[str, str]:
    length = len(re.split(r"[/?#\\]", text, maxsplit=1)[0])
    return text[:length], text[length:]


def _is_surely_host(text: str, *, has_user: bool) -> bool:
    """Whether it cannot be the beginning of a user and password: an IP address, or a name alone without a port."""
    if ":" not in text:
        return not has_user
    try:
        return ipaddress.ip_address(urlsplit(f"//{text}").hostname or "") is not None
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    return re.fullmatch(r"(\[[0-9a-f:.%]+\]|[\w.%-]*)(:\d*)?", text, re.IGNORECASE) is not None


def _shown_path(rest: str) -> str:
    end = _NOT_OF_PATH.search(rest)
    return rest if end is None else rest[: end.end()] + HIDDEN


def _shown_pipeline(pipeline: str) -> str:
    """Its elements, with the properties that are surely no secret."""
    try:
        words = shlex.split(re.sub(r"\s*=\s*", "=", pipeline))
    except ValueError:  # a quotation mark without its second
        return HIDDEN
    return " ".join(_shown_word(word, before) for before, word in zip(["!", *words], words, strict=False))


def _shown_word(word: str, before: str) -> str:
    key, equals, value = word.partition("=")
    if before == "!" and (element := _ELEMENT.match(word)):
        is_whole = element.end() == len(word)
        return element[0] if is_whole else f"{element[0]}{HIDDEN}"
    if not equals:
        return word if word == "!" or re.fullmatch(r"\w+\.", word) else HIDDEN
    if "://" in value:
        return f"{key}={without_password(value)}"
    is_shown = _HARMLESS_VALUE.fullmatch(value) and not _SECRET_KEY.search(key)
    return f"{key}={value if is_shown else HIDDEN}"
