"""What a chat may ask of the model's template, and what an answer says became of it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from server.api.http.errors import InvalidParameterError
from server.engine.request import Scalar, TemplateOptions
from server.measure.examples.variables import VARIABLES_SCHEMA, expected_of_variables

from .fields import Wire

_MAX_NAME_CHARS: Final = 64


def _variables(value: Any) -> Any:
    if expected := expected_of_variables(value):
        raise ValueError(f"expected {expected}")
    return value


_Variables = Annotated[
    dict[str, Any], BeforeValidator(_variables), WithJsonSchema(VARIABLES_SCHEMA)
]


class TemplateFields(Wire):
    """How the messages of a chat are rendered."""

    chat_template: Annotated[str, Field(max_length=_MAX_NAME_CHARS)] | None = Field(
        default=None, description="Name of one of the model's templates; never its text."
    )
    chat_template_kwargs: _Variables = Field(
        default_factory=dict, description="Values of variables that the template reads."
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        Field(
            default=None,
            description="For a template that reads it; for a switch of thinking, none or not.",
        )
    )

    def refuse_without_messages(self) -> None:
        """Refuse what is asked of a template where there are no messages to render.

        Raises:
            InvalidParameterError: Something is; names it.
        """
        for name in ("chat_template", "chat_template_kwargs", "reasoning_effort"):
            if name in self.model_fields_set:
                raise InvalidParameterError(
                    f"{name} is given with a prompt, which no chat template renders; send messages",
                    param=name,
                )

    @property
    def template_options(self) -> TemplateOptions:
        """The fields as the tokenizer takes them."""
        return TemplateOptions(self.chat_template, self.chat_template_kwargs, self.reasoning_effort)


class RenderedTemplate(BaseModel):
    """How a chat was rendered."""

    name: str = Field(examples=["default"])
    variables: dict[str, Scalar] = Field(
        description="Values that it was given.", examples=[{"enable_thinking": False}]
    )
    merged_system: bool = Field(
        description="Whether the system message went into the first user turn."
    )
    not_applied: list[Literal["reasoning_effort"]] = Field(
        description="What was asked for and the template does not read.", examples=[[]]
    )
