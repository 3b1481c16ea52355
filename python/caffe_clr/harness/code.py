"""Finds functions, classes, `else` and fields in C++ and protobuf sources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Tuple

_COMMENTS_STRINGS = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL
)
_FIELD = re.compile(r"\b(optional|repeated|required)\s+([\w.]+)\s+(\w+)\s*=\s*(0x[0-9a-fA-F]+|\d+)")
_ONEOF_FIELD = re.compile(r"([\w.]+)\s+(\w+)\s*=\s*(\d+)")
_RESERVED = re.compile(r"\b(?:reserved|extensions)\s+([^;]+);")
_HIGHEST_NUMBER = 2**29 - 1

Lines = Tuple[str, ...]
Sought = Tuple[Lines, Lines, Lines]  # before a place, in it, and behind it


class Text:
    """The lines of a file; those that are put in get the line ends that it has."""

    def __init__(self, content: bytes) -> None:
        text = content.decode("latin-1")  # gives every byte back as it was
        self.eol = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
        self._lines = re.findall(r"[^\n]*\n|[^\n]+$", text)

    @classmethod
    def read(cls, path: Path) -> Text:
        return cls(path.read_bytes())

    def encoded(self) -> bytes:
        return "".join(self._lines).encode("latin-1")

    @property
    def lines(self) -> list[str]:
        """The lines without what ends them."""
        return [line.rstrip() for line in self._lines]

    @property
    def joined(self) -> str:
        return "\n".join(line.rstrip("\r\n") for line in self._lines)

    def line_of(self, offset: int) -> int:
        """The index of the line that a character of `joined` is in."""
        return self.joined.count("\n", 0, offset)

    def span(self, start: int, end: int) -> range:
        """The indices of the lines from one character of `joined` to another."""
        return range(self.line_of(start), self.line_of(end) + 1)

    def replace(self, at: int, count: int, lines: tuple[str, ...] | list[str]) -> None:
        if at and not self._lines[at - 1].endswith("\n"):
            self._lines[at - 1] += self.eol
        self._lines[at : at + count] = [line + self.eol for line in lines]

    def find(self, lines: tuple[str, ...], scope: range | None = None) -> list[int]:
        """Where these lines stand in a row, trailing blanks aside."""
        wanted = [line.rstrip() for line in lines]
        own = self.lines
        within = scope or range(len(own))
        last = min(within.stop, len(own)) - len(wanted)
        return [i for i in range(within.start, last + 1) if own[i : i + len(wanted)] == wanted]

    def find_exactly(self, sought: Sought, scope: range | None = None) -> int | None:
        """The line of a place, if all that is sought stands here once."""
        before, within, after = sought
        found = self.find((*before, *within, *after), scope)
        return found[0] + len(before) if len(found) == 1 else None

    def find_nearly(self, sought: Sought, scope: range | None = None) -> int | None:
        """The line of a place by as much of the lines around it as stands here once.

        That on both sides, or else that on the side of which more is here.
        """
        before, within, after = sought
        sizes = range(max(len(before), len(after)), -1, -1)
        both = [(_last(before, size), after[:size]) for size in sizes]
        one = [(before, ()) for before, _ in both] + [((), after) for _, after in both]
        one.sort(key=lambda sides: -len(sides[0] or sides[1]))
        for before, after in (*both, *one):
            core = (*before, *within, *after)
            if any(len(line.strip()) > 2 for line in core):
                found = self.find(core, scope)
                if len(found) == 1:
                    return found[0] + len(before)
        return None

    def ending(self, tail: str, scope: range) -> list[int]:
        """The lines that end with these words."""
        own = self.lines
        return [at for at in scope if re.search(rf"(?:^|\s){re.escape(tail)}$", own[at])]


def _last(lines: Lines, count: int) -> Lines:
    return lines[-count:] if count else ()


def masked(text: str) -> str:
    """The text with blanks for comments and strings."""
    return _COMMENTS_STRINGS.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def uncommented(text: str) -> str:
    """The text with blanks for comments."""

    def blank(match: re.Match[str]) -> str:
        return match[0] if match[0][0] in "\"'" else re.sub(r"[^\n]", " ", match[0])

    return _COMMENTS_STRINGS.sub(blank, text)


@dataclass(frozen=True)
class Function:
    """A member function's definition in a file: offsets of its name, its body's brace, its end."""

    start: int
    brace: int
    end: int
    code: str  # from start to end


def defines(blind: str, name: str) -> bool:
    """Whether masked code defines a function of this name."""
    return bool(re.search(rf"\b{name}\([^;{{}}]*\)[^;{{}}]*{{", blind))


def function(text: str, name: tuple[str, str]) -> Function | None:
    """The definition of a function, named by class and member, if it is there once."""
    found = _definitions(text, *name)
    return found[0] if len(found) == 1 else None


def members(text: str, owner: str) -> list[Function]:
    """The definitions of all member functions of a class template."""
    return _definitions(text, owner, r"\w+")


def _definitions(text: str, owner: str, member: str) -> list[Function]:
    code = masked(text)
    head = rf"\b{owner}\s*<[^<>;{{}}]*>\s*::\s*{member}\s*\([^;{{}}()]*\)\s*(?:const\s*)?\{{"
    spans = [(m.start(), m.end() - 1) for m in re.finditer(head, code)]
    ends = [_closing(code, brace) for _, brace in spans]
    return [
        Function(start, brace, end, text[start:end])
        for (start, brace), end in zip(spans, ends)
        if end is not None
    ]


def class_(text: str, name: str) -> tuple[int, int] | None:
    """The offsets of a class's body in a file that defines it: behind its brace, and its end."""
    code = masked(text)
    head = re.search(rf"\bclass\s+{name}\b[^;{{}}]*\{{", code)
    end = head and _closing(code, head.end() - 1)
    return (head.end(), end) if head and end else None


def last_else(code: str) -> int | None:
    """The offset of the last plain `else` of the chain that compares lr_policy in a function."""
    blind = masked(code)
    compared = [m.start() for m in re.finditer(r"\bif\s*\(\s*lr_policy\s*==", blind)]
    if not compared:
        return None
    depth = _depth(blind, compared[-1])
    plain = [
        m.start()
        for m in re.finditer(r"\belse\b(?!\s*if\b)", blind)
        if m.start() > compared[-1] and _depth(blind, m.start()) == depth
    ]
    return plain[0] if plain else None


def first_include(lines: list[str]) -> int:
    """The line of the first #include that no #if encloses; 0 where there is none."""
    depth = 0
    for at, line in enumerate(lines):
        directive = line.strip()
        if directive.startswith("#if"):
            depth += 1
        elif directive.startswith("#endif"):
            depth -= 1
        elif directive.startswith("#include") and depth == 0:
            return at
    return 0


@dataclass(frozen=True)
class Field:
    """A field of a message."""

    type: str  # with its label, as in "optional float"
    name: str
    number: int


@dataclass(frozen=True)
class Message:
    """A message in a .proto file: the offset of its closing brace, its fields and numbers."""

    start: int
    end: int
    body: str

    @cached_property
    def fields(self) -> list[Field]:
        body = _without_blocks(self.body, "enum", "message")
        oneofs = re.findall(r"\boneof\s+\w+\s*\{([^{}]*)\}", body)
        found = [Field(f"{m[1]} {m[2]}", m[3], int(m[4], 0)) for m in _FIELD.finditer(body)]
        found += [
            Field(m[1], m[2], int(m[3])) for body in oneofs for m in _ONEOF_FIELD.finditer(body)
        ]
        return found

    def takes(self, number: int) -> bool:
        """Whether a field has the number, or it is reserved."""
        return number in {f.number for f in self.fields} or any(
            number in numbers for numbers in self._ranges
        )

    @cached_property
    def _ranges(self) -> list[range]:
        return [
            range(int(first), (_HIGHEST_NUMBER if last == "max" else int(last or first)) + 1)
            for listed in _RESERVED.findall(self.body)
            for first, last in re.findall(r"(\d+)(?:\s+to\s+(\d+|max))?", listed)
        ]


def message(text: str, name: str) -> Message | None:
    """A message at the top of a .proto file."""
    code = masked(text)
    head = re.search(rf"^\s*message\s+{name}\s*\{{", code, re.MULTILINE)
    if head is None:
        return None
    end = _closing(code, head.end() - 1)
    if end is None:
        return None
    return Message(head.start(), end - 1, code[head.end() : end - 1])


def _without_blocks(body: str, *kinds: str) -> str:
    while found := re.search(rf"\b(?:{'|'.join(kinds)})\s+\w+\s*\{{", body):
        end = _closing(body, found.end() - 1)
        body = body[: found.start()] + body[end or len(body) :]
    return body


def _closing(code: str, brace: int) -> int | None:
    """The offset behind the brace that closes the one at `brace`."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, brace):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.end()
    return None


def _depth(code: str, offset: int) -> int:
    return code.count("{", 0, offset) - code.count("}", 0, offset)
