"""One chat template of a checkpoint: in what form it reads a chat, and what goes wrong in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser

from server.engine.errors import RequestRejectedError
from server.engine.request import Scalar, TemplateOptions

Message = Mapping[str, str]
"""A turn: `role`, `content`, and of an assistant perhaps `reasoning_content`, its thought."""

_PROBES: Final = ("7301946528", "8264193507")
_MAX_CHARS: Final = 300
_SWITCHES: Final = ("enable_thinking", "thinking")
_EFFORT: Final = "reasoning_effort"
_RESERVED: Final = frozenset(
    {
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("raise_exception", "strftime_now"),
    }
)
"""What the renderer gives to every template, so that no caller may."""


class ChatTemplate:
    """Renders messages with a tokenizer's own template; its code runs in transformers' sandbox.

    What a template expects is found out by asking it, once. It may read `content` as a text or as
    a list of parts `{type: "text", text}`: parts are for one that shows their text and not that of
    a string. It may have no place for a system message, and then refuses or drops it: such a
    message goes to the head of the first user turn, as Gemma's and Mistral's templates do it.
    """

    def __init__(self, name: str, source: str, apply: Callable[..., Any]) -> None:
        """Try the template.

        Args:
            name: What the checkpoint calls it.
            source: Jinja.
            apply: `apply_chat_template` of its tokenizer.

        Raises:
            ValueError: It is not Jinja.
        """
        self.name = name
        self.source = source
        self._apply = apply
        self.variables = _variables(name, source, apply)
        self._takes_parts, self._takes_system = False, True
        if not self._shows_probes("user"):
            self._takes_parts = True
            self._takes_parts = self._shows_probes("user")
        if self._shows_probes("user"):
            self._takes_system = self._shows_probes("system", "user")

    def merges_system(self, messages: Sequence[Message]) -> bool:
        """Whether the first messages are of the system and go into the user turn after them."""
        if self._takes_system:
            return False
        roles = [message["role"] for message in messages if message["role"] != "system"]
        return messages[0]["role"] == "system" and roles[:1] == ["user"]

    def values(self, options: TemplateOptions) -> dict[str, Scalar]:
        """Its variables with the values that the options give them.

        A reasoning effort goes to a template that reads one, and to a switch of thinking as whether
        it is other than `none`; variables that the caller gave go before that.

        Raises:
            RequestRejectedError: It does not read a variable that asks for something.
        """
        for name, value in options.variables.items():
            if name not in self.variables and value not in (None, False):
                known = f"it reads {', '.join(sorted(self.variables)) or 'none'}"
                raise RequestRejectedError(
                    f"chat_template_kwargs has {name!r}, which the model's chat template does not "
                    f"read; {known}; leave it out",
                    param=f"chat_template_kwargs.{name}",
                )
        effort, derived = options.reasoning_effort, dict[str, Scalar]()
        if effort is not None:
            derived = dict.fromkeys(_SWITCHES, effort != "none") | {_EFFORT: effort}
        given = derived | dict(options.variables)
        return {name: value for name, value in given.items() if name in self.variables}

    @property
    def reads_effort(self) -> bool:
        """Whether a reasoning effort changes anything."""
        return not self.variables.isdisjoint({_EFFORT, *_SWITCHES})

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        values: Mapping[str, Scalar] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The text of a chat.

        Raises:
            RequestRejectedError: The template refuses these messages or fails on them.
        """
        try:
            return self._render(messages, add_generation_prompt, dict(values or {}), tools)
        except Exception as error:  # whatever a program of the checkpoint raises is its fault
            verb = "refuses" if type(error) is TemplateError else "fails on"
            kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            raise RequestRejectedError(
                f"the model's chat template {verb} these messages: {kind}{error!s:.{_MAX_CHARS}}",
                param="messages",
            ) from error

    def _render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        values: Mapping[str, Scalar],
        tools: Sequence[Mapping[str, Any]],
    ) -> str:
        if self.merges_system(messages):
            messages = _merged(messages)
        rendered = self._apply(
            [self._as_read(message) for message in messages],
            chat_template=self.source,
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **values,
        )
        return str(rendered)

    def _as_read(self, message: Message) -> dict[str, Any]:
        """A message in the form that the template reads, its thought under both usual names."""
        read: dict[str, Any] = dict(message)
        if self._takes_parts:
            read["content"] = [{"type": "text", "text": message["content"]}]
        if "reasoning_content" in message:
            read["thinking"] = message["reasoning_content"]
        return read

    def _shows_probes(self, *roles: str) -> bool:
        """Whether a chat of such turns is rendered with the text of each."""
        messages = [
            {"role": role, "content": probe} for role, probe in zip(roles, _PROBES, strict=False)
        ]
        try:
            rendered = self._render(messages, True, {}, ())
        except Exception:  # it may ask for other messages than these, or for content of one form
            return False
        is_shown = all(message["content"] in rendered for message in messages)
        # A list may be written down as it is, which is not to read its text.
        return is_shown and not any(quoted in rendered for quoted in ("'type'", '"type"'))


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Messages whose first user turn begins with what the system's turns before it say."""
    system = list(takewhile(lambda message: message["role"] == "system", messages))
    first, *rest = messages[len(system) :]
    said = [message["content"] for message in (*system, first) if message["content"].strip()]
    return [{**first, "content": "\n\n".join(said)}, *rest]


class _GenerationBlock(Extension):
    """Reads `{% generation %}`, in which some templates put what assistants say, as its content."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _variables(name: str, source: str, apply: Callable[..., Any]) -> frozenset[str]:
    """The variables that a template reads and a caller may give.

    Not those that the renderer gives: the chat, special tokens, functions, and whatever
    `apply_chat_template` takes for itself; nor those that the template sets, unless it asks whether
    they are defined.
    """
    environment = Environment(extensions=[loopcontrols, _GenerationBlock])
    try:
        program = environment.parse(source)
        read = find_undeclared_variables(program) - _set_by(program)
    except TemplateSyntaxError as error:
        raise ValueError(
            f"the chat template {name!r} is no valid Jinja: line {error.lineno}: {error.message}"
        ) from error
    owned = _RESERVED.union(inspect.signature(apply).parameters)
    return frozenset(n for n in read - owned if not n.endswith(("_token", "_tokens")))


def _set_by(program: nodes.Template) -> set[str]:
    """The names that a template sets without asking whether they are defined."""
    names = {n.name for n in program.find_all(nodes.Name) if n.ctx == "store"}
    asked: list[nodes.Expr | None]
    asked = [n.node for n in program.find_all(nodes.Test) if n.name in ("defined", "undefined")]
    asked += [n.node for n in program.find_all(nodes.Filter) if n.name in ("default", "d")]
    return names - {node.name for node in asked if isinstance(node, nodes.Name)}
