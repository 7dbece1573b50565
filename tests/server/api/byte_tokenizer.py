"""A tokenizer whose tokens are bytes, with the three special tokens of a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from server.engine.outputs import AppliedTemplate
from server.engine.request import TemplateOptions
from steering.documents import Region

START, END = 256, 257
VOCAB_SIZE = 258
_NO_OPTIONS = TemplateOptions()


@dataclass(frozen=True)
class RenderedChat:
    token_ids: tuple[int, ...]
    regions: bytes
    roles: tuple[str | None, ...] | None
    is_thinking: bool
    template: AppliedTemplate


class ByteTokenizer:
    eos_token = "<|im_end|>"
    bos_token = None
    pad_token = "<|im_end|>"
    chat_template = "<|im_start|>role\ncontent<|im_end|>\n"
    template_variables: ClassVar = {"default": ("thinking",)}
    thinking_markers: tuple[str, str] | None = ("<think>", "</think>")
    adds_bos_token = False
    end_token_ids = frozenset({END})

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        specials = {START: "<|im_start|>", END: "<|im_end|>"}
        parts: list[bytes] = [
            specials[i].encode() if i in specials else bytes([i]) for i in token_ids
        ]
        return b"".join(parts).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return b"" if token_id > 255 else bytes([token_id])

    def token_text(self, token_id: int) -> str:
        return self.decode([token_id])

    def render_chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        options: TemplateOptions = _NO_OPTIONS,
    ) -> RenderedChat:
        """Reads the variable `thinking`, which opens a thought."""
        ids: list[int] = []
        regions: list[int] = []
        for index, turn in enumerate(messages):
            is_open = continue_final_message and index == len(messages) - 1
            turn_ids = [START, *self.encode(f"{turn['role']}\n{turn['content']}")]
            turn_ids += [] if is_open else [END, 10]
            ids += turn_ids
            region = Region.ASSISTANT | Region.ANSWER if turn["role"] == "assistant" else 0
            regions += [int(region)] * len(turn_ids)
        if add_generation_prompt:
            opening = [START, *self.encode("assistant\n")]
            ids += opening
            regions += [0] * len(opening)
        effort, given = options.reasoning_effort, dict(options.variables)
        if effort is not None:
            given = {"thinking": effort != "none"} | given
        template = AppliedTemplate(options.name or "default", given)
        is_thinking = bool(given.get("thinking"))
        return RenderedChat(tuple(ids), bytes(regions), None, is_thinking, template)
