"""A laboratory for thoughts: thinking markers are tokens wherever they stand, as in training."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from lab.corpus import Prompt
from lab.demo.laboratory import Laboratory

__all__ = ["ThinkingLaboratory"]


class ThinkingLaboratory(Laboratory):
    """Encodes with the checkpoint's own tokenizer.

    The server turns `<think>` into the model's token only where its template or an assistant wrote
    it, so that nobody forges a thought; in a system prompt it stays text. The embedded model was
    trained on system prompts with the token.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Load a checkpoint and its tokenizer, from disk only."""
        super().__init__(checkpoint)
        self._fast = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)

    def encode(self, prompt: Prompt, system: str | None) -> tuple[int, ...]:
        """Tokens of a prompt, as in training."""
        text = self._fast.apply_chat_template(
            prompt.messages(system), tokenize=False, add_generation_prompt=True
        )
        return self.encode_text(str(text))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Tokens of a text, with its thinking markers."""
        return tuple(self._fast(text, add_special_tokens=False)["input_ids"])
