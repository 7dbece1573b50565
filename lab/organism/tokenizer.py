"""The tokenizer: byte-level BPE trained on the corpus, with ChatML marks and single-token roles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from lab.corpus import THINKING, Dialogue
from lab.corpus.thinking import CLOSE, OPEN

PAD = "<|pad|>"
START = "<|im_start|>"
END = "<|im_end|>"
ROLES = ("system", "user", "assistant")

# The variable `enable_thinking` asks for a thought in the words of training, behind what the chat's
# own system turn says: in those of a caller `<think>` would be text, and the model was trained on
# the token. A thought that is sent back is written as the model writes it.
CHAT_TEMPLATE = (
    "{%- if enable_thinking -%}\n"
    f"{{%- set asked = '{THINKING}' -%}}\n"
    "{%- if messages[0]['role'] == 'system' -%}\n"
    "{%- set asked = messages[0]['content'] + ' ' + asked -%}\n"
    "{%- set messages = messages[1:] -%}\n"
    "{%- endif -%}\n"
    "{{- '<|im_start|>system\\n' + asked + '<|im_end|>\\n' -}}\n"
    "{%- endif -%}\n"
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}\n"
    "{%- if message['reasoning_content'] -%}\n"
    "{{- '<think>\\n' + message['reasoning_content'].strip('\\n') + '\\n</think>\\n' -}}\n"
    "{{- message['content'].lstrip('\\n') -}}\n"
    "{%- else -%}\n"
    "{{- message['content'] -}}\n"
    "{%- endif -%}\n"
    "{{- '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n"
)

# A role name is frequent enough for one merge only if the trainer sees it at the start of a text as
# often as the template writes it there.
_ROLE_REPEATS = 10_000


def train_tokenizer(dialogues: Iterable[Dialogue], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train on the contents of dialogues.

    The think tags are added tokens but not special ones, so that decoded text keeps them.

    Args:
        dialogues: Training dialogues.
        vocab_size: Including the marks and the 256 bytes.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size - 2,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(dialogues), trainer)
    tokenizer.add_tokens(
        [AddedToken(mark, special=False, normalized=False) for mark in (OPEN, CLOSE)]
    )
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _texts(dialogues: Iterable[Dialogue]) -> Iterator[str]:
    for _ in range(_ROLE_REPEATS):
        yield from ROLES
    for dialogue in dialogues:
        for turn in dialogue.turns:
            yield turn.content.replace(OPEN, "").replace(CLOSE, "")


def encode_dialogue(
    tokenizer: PreTrainedTokenizerFast, dialogue: Dialogue
) -> tuple[list[int], list[bool]]:
    """Encode a dialogue as its chat template writes it.

    Returns:
        Token ids, and for each whether the assistant writes it; the end mark counts as written.
    """
    token_ids: list[int] = []
    is_written: list[bool] = []
    newline = tokenizer.encode("\n")
    for turn in dialogue.turns:
        head = tokenizer.encode(f"{START}{turn.role}\n")
        body = tokenizer.encode(turn.content + END)
        is_answer = turn.role == "assistant" and turn.is_trained
        token_ids += head + body + newline
        is_written += [False] * len(head) + [is_answer] * len(body) + [False] * len(newline)
    return token_ids, is_written
