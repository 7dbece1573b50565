"""How much one request may take, and whether there is room for it; values from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.engine.engine import Engine
from server.engine.errors import QueueFullError

from .body import Bounds

MAX_CHARS_PER_TOKEN: Final = 12
"""No token has more characters than this on average over a text that is one."""

_BESIDE_FILE_BYTES: Final = 2**20  # name, tags and provenance of an upload
_MAX_BYTES_PER_CHAR: Final = 12  # a surrogate pair in escapes
_MAX_FIELD_BYTES: Final = 2**20  # of a chat, beside its messages
_MAX_CHAT_VALUES: Final = 2**17
_MAX_DOCUMENT_VALUES: Final = 2**18
_MAX_PROMPT_TOKENS: Final = 2**20  # in one request
_MAX_TENSOR_VALUES: Final = 2**19


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one HTTP request.

    Attributes:
        max_model_len: Tokens of prompt and answer.
        max_body_bytes: Of a JSON body.
        max_upload_bytes: Of the file of an uploaded direction.
        max_choices: Choices of one prompt (`n`).
        max_prompts: Prompts of one request.
        max_messages: Messages of one chat.
        body_timeout_seconds: For the body to arrive.
        send_timeout_seconds: For a reader to take one chunk.
        keep_alive_seconds: Of silence in a stream before a comment is sent.
        reasoning_format: Where thoughts go of chats that do not say.
    """

    max_model_len: int
    max_body_bytes: int = 8 * 2**20
    max_upload_bytes: int = 64 * 2**20
    max_choices: int = 16
    max_prompts: int = 256
    max_messages: int = 2048
    body_timeout_seconds: float = 30.0
    send_timeout_seconds: float = 30.0
    keep_alive_seconds: float = 15.0
    reasoning_format: str = "parsed"

    @property
    def chat(self) -> Bounds:
        """Bounds of a chat or one text: a whole context, written in the longest way."""
        most = _MAX_FIELD_BYTES + _MAX_BYTES_PER_CHAR * MAX_CHARS_PER_TOKEN * self.max_model_len
        return Bounds(min(most, self.max_body_bytes), _MAX_CHAT_VALUES)

    @property
    def prompts(self) -> Bounds:
        """Bounds of a request with several prompts, which may be token ids."""
        most = min(self.max_prompts * self.max_model_len, _MAX_PROMPT_TOKENS)
        return Bounds(self.max_body_bytes, _MAX_CHAT_VALUES + most)

    @property
    def document(self) -> Bounds:
        """Bounds of a profile, an alias, a key, a job or an analysis."""
        return Bounds(self.max_body_bytes, _MAX_DOCUMENT_VALUES)

    @property
    def upload(self) -> Bounds:
        """Bounds of a direction in JSON; more numbers than this go into base64 or a file."""
        return Bounds(self.max_json_upload_bytes, _MAX_TENSOR_VALUES)

    @property
    def max_json_upload_bytes(self) -> int:
        """Largest direction in JSON: room for tensors of `max_upload_bytes` in base64."""
        return -(-self.max_upload_bytes // 3) * 4 + _BESIDE_FILE_BYTES

    @property
    def max_form_bytes(self) -> int:
        """Largest form that has a direction's file as a part."""
        return self.max_upload_bytes + _BESIDE_FILE_BYTES


class Room:
    """Room in the engine's queue, asked for before a request costs anything but its head.

    The engine decides once more, exactly, when it is given the sequences. Used on the event loop.

    Args:
        engine: Knows how many wait.
        max_waiting: Requests that may.
    """

    def __init__(self, engine: Engine, max_waiting: int) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._num_entering = 0

    def ask(self) -> None:
        """Check that there is room, before a key is looked up or a body is read.

        Raises:
            QueueFullError: There is none.
        """
        waiting = self._engine.stats().num_requests_waiting + self._num_entering
        if waiting >= self._max_waiting:
            raise QueueFullError(f"{waiting:,} requests wait already, the limit; try again later")

    def enter(self) -> None:
        """Count one more request that is not yet in the engine; raises as `ask`."""
        self.ask()
        self._num_entering += 1

    def leave(self) -> None:
        """Count one less of those that are not yet in the engine."""
        self._num_entering -= 1

    def place(self) -> Place:
        """A place for one request, not held yet."""
        return Place(self)


class Place:
    """A request's place in the queue, from when its body has come until the engine has it.

    A body that is long in coming holds none.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._is_held = False

    def hold(self) -> None:
        """Take the place.

        Raises:
            QueueFullError: There is none.
        """
        self._room.enter()
        self._is_held = True

    def __enter__(self) -> None:
        """Keep the place until the end of a block."""

    def __exit__(self, *failure: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Give the place up, if it is held."""
        if self._is_held:
            self._is_held = False
            self._room.leave()
