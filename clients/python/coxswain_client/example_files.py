"""Example prompts from JSONL and CSV files, with every wrong line named.

JSONL: a line is a text, a list of messages, or an object with `prompt` (or `text`), and `answer` or
`system` if there are any, or with `messages`. CSV: a header with the same names but `messages`, a
row for each example; or `conversation`, `role` and `content`, a row for each message. Pairs are
objects `{"positive": ..., "negative": ...}`, or a CSV with the columns `positive` and `negative`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import SteeringClientError

_T = TypeVar("_T")
_COLUMNS: Final = ("prompt", "text", "answer", "system")
_MESSAGE_COLUMNS: Final = ("conversation", "role", "content")
_PAIR_COLUMNS: Final = ("positive", "negative")
_SHOWN: Final = 5
_SHOWN_TEXT: Final = 60

_Rows = Iterable[tuple[int, dict[str, str]]]
_Text = Annotated[str, Field(min_length=1)]


class ExampleFileError(SteeringClientError):
    """A file of examples cannot be read; the message names the file and the lines."""


def read_examples(path: Path) -> list[Any]:
    """The examples of a file, each a text or a list of messages, as a fit's data takes them.

    Raises:
        ExampleFileError: It cannot be read, or some of its lines are wrong.
    """
    if _is_csv(path):
        columns, rows = _read_csv(path)
        if set(columns) == set(_MESSAGE_COLUMNS):
            return _conversations(path, rows)
        _check_columns(path, columns, _COLUMNS)
        return _each(path, rows, _item)
    return _each(path, _lines(path), lambda line: _item(_json(line)))


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """The pairs of a file: `{"positive": example, "negative": example}`.

    Raises:
        ExampleFileError: It cannot be read, or some of its lines are wrong.
    """
    if _is_csv(path):
        columns, rows = _read_csv(path)
        _check_columns(path, columns, _PAIR_COLUMNS, needs_all=True)
        return _each(path, rows, _pair)
    return _each(path, _lines(path), lambda line: _pair(_json(line)))


def _is_csv(path: Path) -> bool:
    if path.suffix.lower() in (".csv", ".jsonl"):
        return path.suffix.lower() == ".csv"
    raise ExampleFileError(f"{path}: unknown kind of file; expected .jsonl or .csv")


def _text(path: Path) -> str:
    try:
        # Spreadsheets begin UTF-8 files with a byte order mark.
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExampleFileError(f"{path}: cannot be read as UTF-8 text: {error}") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((n, line) for n, line in enumerate(_text(path).split("\n"), 1) if line.strip())


def _read_csv(path: Path) -> tuple[list[str], _Rows]:
    """The columns of a file and its rows, with the number of each row's last line."""
    reader = csv.reader(io.StringIO(_text(path)), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    problems: list[str] = []
    columns: list[str] = []
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        for cells in reader:
            if len(cells) not in (0, len(columns)):
                problems.append(
                    f"{path}:{reader.line_num}: {len(cells)} cells; expected {len(columns)}"
                )
            elif any(cells):
                row = dict(zip(columns, cells, strict=True))
                rows.append((reader.line_num, {n: c for n, c in row.items() if c.strip()}))
    except csv.Error as error:
        problems.append(f"{path}:{reader.line_num}: {error}")
    _raise(path, problems, is_empty=not rows)
    return columns, rows


def _check_columns(
    path: Path, columns: list[str], known: tuple[str, ...], *, needs_all: bool = False
) -> None:
    unknown = [name for name in columns if name not in known]
    missing = [name for name in known if name not in columns] if needs_all else []
    if unknown or missing or len(set(columns)) < len(columns):
        also = "" if needs_all else f"; or {', '.join(_MESSAGE_COLUMNS)}"
        raise ExampleFileError(
            f"{path}:1: columns are {', '.join(columns)}; expected {', '.join(known)}{also}"
        )


def _conversations(path: Path, rows: _Rows) -> list[Any]:
    """Chats of consecutive rows with the same `conversation`."""
    chats: list[tuple[int, str | None, list[dict[str, str]]]] = []
    for number, row in rows:
        name = row.pop("conversation", None)
        if not chats or chats[-1][1] != name:
            chats.append((number, name, []))
        chats[-1][2].append(row)
    return _each(path, [(n, {"messages": turns}) for n, _, turns in chats], _item)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None


def _item(value: Any) -> Any:
    if isinstance(value, str):
        value = {"prompt": value}
    elif isinstance(value, list):
        value = {"messages": value}
    elif not isinstance(value, dict):
        raise ValueError("expected a text, a list of messages or an object")
    return ExampleItem.model_validate(value).document()


def _pair(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(_PAIR_COLUMNS):
        raise ValueError("not a pair; expected positive and negative")
    return {side: _item(value[side]) for side in _PAIR_COLUMNS}


def _each(path: Path, rows: Iterable[tuple[int, _T]], read: Callable[[_T], Any]) -> list[Any]:
    """What `read` makes of every row; raises with the first problem of every row that is wrong."""
    found: list[Any] = []
    problems: list[str] = []
    for number, row in rows:
        try:
            found.append(read(row))
        except ValidationError as error:
            problems.append(f"{path}:{number}: {_problem(error)}")
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    _raise(path, problems, is_empty=not found)
    return found


def _problem(error: ValidationError) -> str:
    """The first problem of an item."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        fields = ("role", "content") if "." in where else tuple(ExampleItem.model_fields)
        return f"unknown field {where}; expected {', '.join(fields)}"
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] == "value_error" else f" (got {str(first['input'])[:_SHOWN_TEXT]!r})"
    return f"{where}: {message}{got}" if where else message


def _raise(path: Path, problems: list[str], *, is_empty: bool) -> None:
    if not problems and is_empty:
        problems = [f"{path}: no examples"]
    if problems:
        more = len(problems) - _SHOWN
        tail = [f"... and {more} more lines"] if more > 0 else []
        raise ExampleFileError("\n".join([*problems[:_SHOWN], *tail]))


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    content: _Text


class ExampleItem(BaseModel):
    """What the user says, or a whole chat.

    Attributes:
        prompt: The user's message; `text` is another name for it.
        answer: What the assistant said to it.
        system: System prompt before the user's message.
        messages: The whole chat, instead of the other fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: _Text | None = None
    text: _Text | None = None
    answer: _Text | None = None
    system: _Text | None = None
    messages: Annotated[list[_Turn], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [n for n in ("prompt", "text", "messages") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"has {' and '.join(given) or 'none of them'}; expected one of prompt, text and "
                "messages"
            )
        if self.messages is not None and (self.answer or self.system):
            raise ValueError("answer and system belong into messages")
        return self

    def document(self) -> str | list[dict[str, Any]]:
        """The example as the server reads it: a text, or a list of messages."""
        if self.messages is not None:
            return [turn.model_dump() for turn in self.messages]
        said = self.prompt or self.text or ""
        if self.answer is None and self.system is None:
            return said
        turns = (("system", self.system), ("user", said), ("assistant", self.answer))
        return [{"role": role, "content": text} for role, text in turns if text is not None]
