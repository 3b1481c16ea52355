"""Reads protobuf's text format as Caffe does.

Protobuf's parser for Python accepts text that the C++ parser, and so Caffe, refuses (300_000,
0b100, "\\P"), and refuses text that Caffe accepts (`- 1`, a string that is not UTF-8). The
rules here are those of protobuf's text_format.cc and tokenizer.cc, version 3.21.
"""

import math
import re
import unicodedata
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_BLANK = re.compile(rb"(?:[ \t\n\v\f\r]|#[^\n]*)*")
_TOKEN = re.compile(
    rb"""
    (?P<name> [A-Za-z_][A-Za-z0-9_]* )
    | (?P<string> "(?:[^"\\\n]|\\[^\n])*" | '(?:[^'\\\n]|\\[^\n])*' )
    | (?P<integer> (?: 0[xX][0-9A-Fa-f]+ | 0[0-7]+ | 0 | [1-9][0-9]* ) (?![A-Za-z0-9_.]) )
    | (?P<real>
        (?: (?:0|[1-9][0-9]*) (?:\.[0-9]*)? | \.[0-9]+ ) (?: [eE][+-]?[0-9]+ )? [fF]?
        (?![A-Za-z0-9_.]) )
    | (?P<symbol> [!#-&(-/:-@\[-`{-~] )
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(
    rb"""\\(?:
    (?P<octal>[0-7]{1,3})
    | x(?P<hex>[0-9A-Fa-f]{1,2})
    | (?P<pair>u[Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2})
    | (?:u|U00(?=0|10))(?P<unicode>(?<=u)[0-9A-Fa-f]{4}|(?<=U00)[0-9A-Fa-f]{6})
    | (?P<letter>[abfnrtv\\?'"])
    | .
    )""",
    re.VERBOSE | re.DOTALL,
)
_LETTERS = dict(zip(b"abfnrtv\\?'\"", b"\a\b\f\n\r\t\v\\?'\"", strict=True))
_NO_UTF8 = re.compile("[\udc80-\udcff]")  # what errors="surrogateescape" makes of such bytes
_NOT_HELD = (
    "a string that is not UTF-8, which `caffe train` reads and pycaffe does not; save the file as"
    " UTF-8, and rename the files it names"
)
_BOOLEANS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_CLOSING = {"{": "}", "<": ">"}
_LENGTH = 2  # the wire type of strings
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


class TextError(ValueError):
    """A text that Caffe cannot read.

    Attributes:
        line, column: where, both counted from 1; the column in characters.
        reason: what is wrong there.
        unknown: the descriptor, of a message or an enum, that lacks a name, and that name.
    """

    def __init__(self, line: int, column: int, reason: str, unknown: tuple[Any, str] | None):
        super().__init__(f"{line}:{column}: {reason}")
        self.line = line
        self.column = column
        self.reason = reason
        self.unknown = unknown


def parse(text: bytes, message: Any, *, only_utf8: bool = False) -> Any:
    """Fill a message from its text.

    Args:
        only_utf8: refuse strings that are not UTF-8, although Caffe accepts them. Without
            it, the message holds such a string as bytes.

    Returns:
        The message.

    Raises:
        TextError: Caffe cannot read the text.
    """
    parser = _Parser(text, only_utf8)
    if b"\0" in text:  # as in UTF-16; nowhere else are such bytes, not even in a comment
        at = text.index(b"\0")
        raise parser.error("U+0000 (a control character), which Caffe cannot read", at=at)
    parser.next()
    parser.read_fields(message, closing="")
    if missing := message.FindInitializationErrors():
        raise parser.error(f"{missing[0]} is required, but missing")
    return message


class _Parser:
    """A text, and the token that is to be read next."""

    def __init__(self, text: bytes, only_utf8: bool) -> None:
        self._text = text
        self._only_utf8 = only_utf8
        self._kind = ""  # a group of _TOKEN, or "end"
        self._token = ""
        self._at = self._end = 0

    def error(
        self, reason: str, *, at: int | None = None, unknown: tuple[Any, str] | None = None
    ) -> TextError:
        """What is wrong at the next token, or at a place in the text."""
        place = self._at if at is None else at
        begin = self._text.rfind(b"\n", 0, place) + 1
        line = self._text.count(b"\n", 0, place) + 1
        before = self._text[begin:place].decode(errors="replace")
        return TextError(line, len(before) + 1, reason, unknown)

    def read_fields(self, message: Any, closing: str) -> None:
        """Read the fields of a message, and what closes it."""
        while self._token not in ("}", ">") and self._kind != "end":
            self._read_field(message)
        if self._token != closing:
            raise self._expected(f'"{closing}"' if closing else "a field")
        if closing:
            self.next()

    def _read_field(self, message: Any) -> None:
        if self._kind != "name":
            raise self._expected("a field")
        field = message.DESCRIPTOR.fields_by_name.get(self._token)
        if field is None:
            raise self.error("", unknown=(message.DESCRIPTOR, self._token))
        is_list = _is_list(message, field)
        if not is_list and message.HasField(field.name):
            raise self.error(f"{field.name} is set twice; keep one")
        self.next()
        is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
        if not self._take(":") and not is_message:
            raise self._expected('":"')
        if is_list and self._take("["):
            self._read_list(message, field)
        else:
            self._read_value(message, field)
        if not self._take(";"):
            self._take(",")

    def _read_list(self, message: Any, field: FieldDescriptor) -> None:
        if self._take("]"):
            return
        while True:
            self._read_value(message, field)
            if self._take("]"):
                return
            if not self._take(","):
                raise self._expected('"," or "]"')

    def _read_value(self, message: Any, field: FieldDescriptor) -> None:
        is_list = _is_list(message, field)
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            if self._token not in _CLOSING:
                raise self._expected('"{"')
            closing = _CLOSING[self._token]
            self.next()
            inner = getattr(message, field.name)
            if is_list:
                inner = inner.add()
            else:
                inner.SetInParent()
            self.read_fields(inner, closing)
            return
        value = self._read_scalar(field)
        if isinstance(value, bytes) and field.type == FieldDescriptor.TYPE_STRING:
            # the attributes of a message take no others than UTF-8
            content = _varint(field.number << 3 | _LENGTH) + _varint(len(value)) + value
            message.MergeFromString(content)
        elif is_list:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    def _read_scalar(self, field: FieldDescriptor) -> Any:
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                return self._read_string()
            case FieldDescriptor.CPPTYPE_BOOL:
                return self._read_boolean()
            case FieldDescriptor.CPPTYPE_ENUM:
                return self._read_enum(field)
            case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
                return self._read_real()
        return self._read_integer(*_INTEGERS[field.cpp_type])

    def _read_integer(self, lowest: int, highest: int) -> int:
        sign = -1 if lowest < 0 and self._take("-") else 1
        if self._kind != "integer":
            raise self._expected("a whole number")
        value = sign * _integer(self._token)
        if not lowest <= value <= highest:
            raise self.error(f"{self._token} is out of range, from {lowest} to {highest}")
        self.next()
        return value

    def _read_real(self) -> float:
        sign = -1 if self._take("-") else 1
        text, kind = self._token, self._kind
        if kind == "integer" and text[0] == "0" and text != "0":
            raise self.error(f"{text}, where only a decimal number is allowed")
        if kind == "name" and text.lower() in ("inf", "infinity", "nan"):
            value = float(text)
        elif kind in ("integer", "real"):
            value = float(text.rstrip("fF"))
        else:
            raise self._expected("a number")
        self.next()
        return math.copysign(value, sign)

    def _read_boolean(self) -> bool:
        if self._kind == "integer":
            return bool(self._read_integer(0, 1))
        if self._token not in _BOOLEANS:
            raise self._expected("true or false")
        value = _BOOLEANS[self._token]
        self.next()
        return value

    def _read_enum(self, field: FieldDescriptor) -> int:
        names = field.enum_type.values_by_name
        if self._kind == "name":
            if self._token not in names:
                raise self.error("", unknown=(field.enum_type, self._token))
            value = int(names[self._token].number)
            self.next()
            return value
        at = self._at
        value = self._read_integer(*_INTEGERS[FieldDescriptor.CPPTYPE_INT32])
        if value not in field.enum_type.values_by_number:
            known = ", ".join(names)
            raise self.error(f"{field.name} has no value {value}; use one of {known}", at=at)
        return value

    def _read_string(self) -> str | bytes:
        if self._kind != "string":
            raise self._expected("a string in quotation marks")
        at, content = self._at, b""
        while self._kind == "string":
            content += _ESCAPE.sub(self._unescaped, self._text[self._at + 1 : self._end - 1])
            self.next()
        try:
            return content.decode()
        except UnicodeDecodeError:
            if self._only_utf8:
                raise self.error(_NOT_HELD, at=at) from None
            return content

    def _unescaped(self, escape: re.Match[bytes]) -> bytes:
        match escape.lastgroup:
            case "octal":
                return bytes([int(escape["octal"], 8) & 0xFF])
            case "hex":
                return bytes([int(escape["hex"], 16)])
            case "unicode":
                return chr(int(escape["unicode"], 16)).encode(errors="surrogatepass")
            case "pair":
                digits = escape["pair"].decode()
                return bytes.fromhex(digits[1:5] + digits[7:]).decode("utf-16-be").encode()
            case "letter":
                return bytes([_LETTERS[escape["letter"][0]]])
        raise self.error(
            f"{escape[0].decode(errors='replace')} has no meaning in a string; write / or \\\\",
            at=self._at + 1 + escape.start(),
        )

    def next(self) -> None:
        """Go on behind a token."""
        blank = _BLANK.match(self._text, self._end)
        assert blank
        self._at = self._end = blank.end()
        token = _TOKEN.match(self._text, self._at)
        if token:
            self._end = token.end()
            self._kind = str(token.lastgroup)
            # what is not ASCII is in strings alone
            self._token = token[0].decode(errors="replace")
        elif self._at == len(self._text):
            self._kind, self._token = "end", ""
        else:
            raise self.error(self._untold())

    def _untold(self) -> str:
        """What is wrong where no token begins."""
        rest = self._text[self._at :]
        if rest[:1] in (b'"', b"'"):
            return "a string that does not end on its line"
        if rest[:1].isdigit() or rest[:1] == b".":
            number = re.match(rb"[A-Za-z0-9_.]*", rest)
            return f"{number[0].decode() if number else ''} is not a number to Caffe"
        # one character, of four bytes at most, or what is left of one
        character = rest[:4].decode(errors="surrogateescape")[0]
        if _NO_UTF8.match(character):
            return f"the byte 0x{ord(character) & 0xFF:x} is not UTF-8; save the file as UTF-8"
        code = f"U+{ord(character):04X}"
        name = unicodedata.name(character, "a control character").lower()
        return f"{code} ({name}), which Caffe allows only in strings and comments; replace it"

    def _take(self, symbol: str) -> bool:
        """Go on behind a symbol, if it is next."""
        if self._kind != "symbol" or self._token != symbol:
            return False
        self.next()
        return True

    def _expected(self, what: str) -> TextError:
        found = "the end of the text" if self._kind == "end" else self._token
        return self.error(f"expected {what}, found {found}")


def _is_list(message: Any, field: FieldDescriptor) -> bool:
    """Whether a field is repeated; what descriptors call it depends on protobuf's version."""
    return hasattr(getattr(message, field.name), "extend")


def _integer(text: str) -> int:
    """The number in a token: hexadecimal, octal or decimal."""
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    return int(text, 8 if text[0] == "0" else 10)


def _varint(number: int) -> bytes:
    content = b""
    while number > 127:
        content += bytes([number & 127 | 128])
        number >>= 7
    return content + bytes([number])
