"""Reads the parameters that Caffe prints into its log, as far as this Caffe knows them.

They may be from another Caffe with fields of its own, truncated, or not in UTF-8; the rest is
read nevertheless. The module prototxt reads files for Caffe, as strictly as Caffe does.
"""

import re
from typing import Any

from google.protobuf import text_encoding, text_format

_STRING = r""""(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?"""
_FIELD = re.compile(
    r"(?P<name>\w{1,200}|\[[\w./]{1,200}\])[ \t]*"
    rf"""(?:(?P<begin>:?[ \t]*\{{)|:[ \t]*(?P<value>{_STRING}|[^\s"'{{}};,]{{1,200}}))"""
    r"|(?P<end>\})"
)

_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_CONTROLS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def read(text: str, message: Any) -> list[str]:
    """Fill a protobuf message from its text.

    A field that is unknown, or whose value cannot be read, is skipped with everything in
    it. Bytes that are not UTF-8 become U+FFFD.

    Args:
        text: the text; it may have anything between its fields, and end anywhere.
        message: the message to fill.

    Returns:
        The names of the skipped fields.
    """
    left_out = []
    within = [message]  # None is a message that is left out
    for field in _FIELD.finditer(text):
        parent, name = within[-1], field["name"]
        if field["end"]:
            within = within[:-1] or [message]
        elif field["begin"]:
            within.append(_message(parent, name))
        if parent is None or field["end"]:
            continue
        if within[-1] is None or (field["value"] and not _set(parent, name, field["value"])):
            left_out.append(name)
    return left_out


def _message(parent: Any, name: str) -> Any:
    """The message in a field of another, which is added; None if it has no such field."""
    field = parent.DESCRIPTOR.fields_by_name.get(name) if parent is not None else None
    if field is None or field.message_type is None:
        return None
    value = getattr(parent, name)
    if hasattr(value, "add"):  # it is repeated
        return value.add()
    value.SetInParent()
    return value


def _set(parent: Any, name: str, value: str) -> bool:
    """Set or append a value to a field; False if that cannot be done."""
    field = parent.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        return False
    try:
        if field.type == field.TYPE_STRING and value[0] in "\"'":
            value = f'"{_in_utf_8(value[1:].removesuffix(value[0]))}"'
        text_format.Merge(f"{name}: {value}", parent)
    except (text_format.ParseError, ValueError):
        return False
    return True


def _in_utf_8(escaped: str) -> str:
    """The content of a string, so that protobuf takes it for text."""
    content = _ESCAPE.sub(_unescaped, escaped.encode()).decode(errors="replace")
    return str(text_encoding.CEscape(content, as_utf8=False))


def _unescaped(escape: re.Match[bytes]) -> bytes:
    character = escape[1]
    if character.isdigit():
        return bytes([int(character, 8) & 0xFF])
    return _CONTROLS.get(character, character)
