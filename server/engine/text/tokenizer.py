"""Text to tokens and back, for one model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from server.engine.outputs import AppliedTemplate
from server.engine.request import TemplateOptions

from .chat_renderer import ChatRenderer
from .chat_template import Message
from .chat_templates import ChatTemplates, find_templates
from .detokenizer import Detokenizer
from .protected_tokens import ProtectedTokens
from .regions import RegionTracker, label_regions, label_roles
from .thought_splitter import ThoughtSplitter

_KNOWN_MARKERS: Final = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, GLM, SmolLM 3, ERNIE, Hunyuan
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<seed:think>", "</seed:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    ("<thought>", "</thought>"),  # EXAONE
)
_NO_OPTIONS: Final = TemplateOptions()
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
_METASPACE: Final = "\u2581"


@dataclass(frozen=True, slots=True)
class EncodedChat:
    """A chat as the model reads it.

    Attributes:
        token_ids: The prompt.
        regions: Region bits (`steering.documents.Region`) per token. None where the template
            changes messages so much that their tokens cannot be told apart.
        roles: Role of the message each token is part of, None for the template's own; None as a
            whole where `regions` is.
        is_thinking: Whether it ends within a thought, which the answer goes on with.
        template: How it was rendered.
    """

    token_ids: tuple[int, ...]
    regions: bytes | None
    roles: tuple[str | None, ...] | None
    is_thinking: bool
    template: AppliedTemplate


class Tokenizer:
    """Wraps a fast tokenizer of Hugging Face; no method changes it, so any thread may use it.

    What callers write is text: spellings of special tokens and thinking markers become special
    tokens only where the chat template writes them, and thinking markers also in what an assistant
    said.
    """

    def __init__(
        self,
        fast: PreTrainedTokenizerFast,
        end_token_ids: frozenset[int],
        *,
        thinking_markers: tuple[str, str] | None = None,
        chat_template: str | None = None,
    ) -> None:
        """Wrap a tokenizer.

        Raises:
            ValueError: A chat template is no valid Jinja, there is none of the name given, or the
                markers given are not tokens.

        Args:
            fast: Never changed from here on.
            end_token_ids: Tokens that end an answer.
            thinking_markers: What opens and what closes a thought, both added tokens; None finds
                those of well-known families among the tokens.
            chat_template: Name of the template for chats that name none; None means `default`.
        """
        self.end_token_ids = end_token_ids
        self._fast = fast
        self._backend = fast.backend_tokenizer
        added = self._backend.get_added_tokens_decoder()
        spellings = {token.content: token_id for token_id, token in added.items()}
        self.thinking_markers = _find_markers(spellings, thinking_markers)
        markers = self.thinking_markers or ()
        self._think_ids: list[int | None] = [None, None]
        if markers:
            self._think_ids = [spellings[marker] for marker in markers]
        self._special_ids = frozenset(i for i, token in added.items() if token.special)
        special = {added[token_id].content for token_id in self._special_ids}
        self._protected = ProtectedTokens(special.union(markers))
        self._encoder = self._protected.tokenizer(self._backend)
        self._templates = ChatTemplates(fast.chat_template, fast.apply_chat_template, chat_template)
        self._token_bytes = _token_bytes_reader(self._backend)
        self.adds_bos_token = bool(self.encode(""))

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        thinking_markers: tuple[str, str] | None = None,
        chat_template: str | None = None,
    ) -> Self:
        """Load from a folder; nothing is downloaded and none of its code is run.

        Args:
            path: The folder.
            thinking_markers: As in the constructor.
            chat_template: A name as in the constructor, or a file of Jinja to use as the default.

        Raises:
            ValueError: The folder has no fast tokenizer, or as in the constructor.
            OSError: The file cannot be read.
        """
        fast = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        if not isinstance(fast, PreTrainedTokenizerFast):
            raise ValueError(
                f"{path.name} has a {type(fast).__name__}; expected a fast tokenizer "
                "(tokenizer.json); convert it with transformers"
            )
        fast.chat_template, name = find_templates(path, fast.chat_template, chat_template)
        return cls(
            fast,
            _end_token_ids(path, fast),
            thinking_markers=thinking_markers,
            chat_template=name,
        )

    @property
    def vocab_size(self) -> int:
        """Tokens it knows, added ones included; a model may have more logits."""
        return self._backend.get_vocab_size()

    def spellings_from(self, first_id: int) -> dict[str, bool]:
        """Tokens with ids from `first_id` on, and whether each was added to the vocabulary."""
        added = self._backend.get_added_tokens_decoder()
        vocabulary = self._backend.get_vocab()
        return {text: i in added for text, i in vocabulary.items() if i >= first_id}

    @property
    def thinking_ids(self) -> tuple[int, int] | None:
        """Tokens that open and close a thought; None for a model without thinking."""
        opening, closing = self._think_ids
        return None if opening is None or closing is None else (opening, closing)

    @property
    def bos_token(self) -> str | None:
        """The beginning token's spelling."""
        return _spelling(self._fast.bos_token)

    @property
    def eos_token(self) -> str | None:
        """The end token's spelling."""
        return _spelling(self._fast.eos_token)

    @property
    def pad_token(self) -> str | None:
        """The padding token's spelling."""
        return _spelling(self._fast.pad_token)

    @property
    def chat_template(self) -> str | None:
        """The source of the template of chats that name none."""
        template = self._templates.default
        return None if template is None else template.source

    @property
    def template_variables(self) -> dict[str, tuple[str, ...]]:
        """The variables that a caller may give to each of the templates, by its name."""
        return self._templates.variables

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Tokens of a text, after the model's beginning token if it has one."""
        return list(self._encoder.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of tokens; bytes that make up no character become U+FFFD."""
        return str(self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens))

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token adds to a text; may be part of a character."""
        return self._token_bytes(token_id)

    def token_text(self, token_id: int) -> str:
        """The text one token adds; U+FFFD stands for bytes that are no whole character."""
        return self.token_bytes(token_id).decode(errors="replace")

    def detokenizer(
        self, prompt_token_ids: Sequence[int], stops: Sequence[str] = (), *, min_tokens: int = 0
    ) -> Detokenizer:
        """A detokenizer of one answer; stop strings count from `min_tokens` on."""
        return Detokenizer(
            self.decode,
            prompt_token_ids,
            stops,
            skipped_ids=self._special_ids,
            min_tokens=min_tokens,
        )

    def region_tracker(
        self, prompt_token_ids: Sequence[int], prompt_regions: bytes
    ) -> RegionTracker:
        """A tracker for the tokens generated after a prompt with these tokens and regions."""
        return RegionTracker.after_prompt(prompt_token_ids, prompt_regions, *self._think_ids)

    def thought_splitter(self, *, is_thinking: bool) -> ThoughtSplitter | None:
        """A splitter of one answer's text, which begins within a thought if `is_thinking`.

        None for a model without thinking.
        """
        if self.thinking_ids is None or self.thinking_markers is None:
            return None
        lengths = [
            0 if token_id in self._special_ids else len(marker)  # special tokens have no text
            for token_id, marker in zip(self.thinking_ids, self.thinking_markers, strict=True)
        ]
        tracker = RegionTracker(*self.thinking_ids, is_thinking=is_thinking)
        return ThoughtSplitter(tracker, dict(zip(self.thinking_ids, lengths, strict=True)))

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        options: TemplateOptions = _NO_OPTIONS,
    ) -> EncodedChat:
        """Encode a chat with a template of the model, as `apply_chat_template` does.

        Args:
            messages: Each with `role` and `content`, and perhaps `reasoning_content`; all text.
            add_generation_prompt: End with the beginning of an assistant's turn.
            continue_final_message: Leave the last turn open, to be continued.
            options: Which template, and values of its variables; their texts become no special
                tokens either.

        Raises:
            RequestRejectedError: There is no such template, it does not read a variable, refuses
                these messages or fails on them, or what it writes lacks the text of one.
        """
        template = self._templates.choose(options)
        values = template.values(options)
        render = partial(
            template.render,
            add_generation_prompt=add_generation_prompt,
            values=self._protected.hide_all(values),
            tools=self._protected.hide_all(options.tools),
        )
        markers = self.thinking_markers or _KNOWN_MARKERS[0]  # which may be text to a template
        renderer = ChatRenderer(render, self._protected, markers)
        rendered = renderer.render(messages, is_open=continue_final_message)
        encoding = self._encoder.encode(rendered.text, add_special_tokens=False)
        ids, regions, roles = tuple(encoding.ids), None, None
        if rendered.turns is not None:
            regions = label_regions(ids, encoding.offsets, rendered.turns, *self._think_ids)
            roles = label_roles(encoding.offsets, rendered.turns)
        applied = AppliedTemplate(
            template.name,
            values,
            merges_system=template.merges_system(messages),
            ignores_effort=options.reasoning_effort is not None and not template.reads_effort,
        )
        return EncodedChat(ids, regions, roles, self._is_thinking(ids, regions), applied)

    def _is_thinking(self, token_ids: Sequence[int], regions: bytes | None) -> bool:
        """Whether a prompt ends within a thought; without regions its last marker tells."""
        if regions is not None:
            return self.region_tracker(token_ids, regions).is_thinking
        markers = [token_id for token_id in token_ids if token_id in self._think_ids]
        return bool(markers) and markers[-1] == self._think_ids[0]


def _find_markers(
    spellings: Container[str], given: tuple[str, str] | None
) -> tuple[str, str] | None:
    """The pair that opens and closes thoughts, of which both are tokens; None without one."""
    if given is not None and not (given[0] in spellings and given[1] in spellings):
        raise ValueError(
            f"the setting thinking_markers is {' and '.join(given)}; expected two tokens that were "
            "added to the model's vocabulary"
        )
    known = _KNOWN_MARKERS if given is None else (given,)
    return next((pair for pair in known if pair[0] in spellings and pair[1] in spellings), None)


def _spelling(token: Any) -> str | None:
    return None if token is None else str(token)


def _end_token_ids(path: Path, fast: PreTrainedTokenizerFast) -> frozenset[int]:
    """The end tokens of the tokenizer, of the generation settings and of the model's own."""
    settings = (_document(path / name) for name in ("generation_config.json", "config.json"))
    documents = [document for document in settings if document]
    documents += [d["text_config"] for d in documents if isinstance(d.get("text_config"), dict)]
    found = {fast.eos_token_id} - {None}
    for document in documents:
        ids = document.get("eos_token_id")
        listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in listed):
            raise ValueError(f"eos_token_id is {ids!r:.80}; expected a token id or a list of them")
        found |= {i for i in listed if i >= 0}
    return frozenset(found)


def _document(file: Path) -> dict[str, Any]:
    document = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return document if isinstance(document, dict) else {}


def _token_bytes_reader(backend: Backend) -> Callable[[int], bytes]:
    """A function from token id to bytes for this tokenizer's kind of vocabulary.

    Byte-level vocabularies write each byte as a printable character; SentencePiece ones write a
    space as U+2581 and bytes outside the vocabulary as `<0x0A>`. Added tokens are written as they
    are. An id without a token has no bytes.
    """
    decoder = str(backend.decoder.__getstate__()) if backend.decoder is not None else ""
    added = {
        token_id: token.content for token_id, token in backend.get_added_tokens_decoder().items()
    }
    read = _read_byte_level if "ByteLevel" in decoder else _read_metaspace

    def token_bytes(token_id: int) -> bytes:
        if token_id in added:
            return added[token_id].encode()
        token = backend.id_to_token(token_id)
        return b"" if token is None else read(token)

    return token_bytes


def _read_byte_level(token: str) -> bytes:
    return b"".join(_BYTES.get(character, character.encode()) for character in token)


def _read_metaspace(token: str) -> bytes:
    match = _BYTE_TOKEN.fullmatch(token)
    return bytes.fromhex(match[1]) if match else token.replace(_METASPACE, " ").encode()


def _byte_characters() -> dict[str, bytes]:
    """GPT-2's printable character of each byte, reversed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    named = {chr(byte): bytes([byte]) for byte in printable}
    return named | {chr(256 + rank): bytes([byte]) for rank, byte in enumerate(others)}


_BYTES: Final = _byte_characters()
