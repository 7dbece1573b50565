"""Judging by another model, behind any OpenAI-compatible endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, field_validator

from coxswain_client.call import Call
from coxswain_client.sender import AsyncSender, Connection
from coxswain_evals.errors import EvaluationError, JudgeError

from .judge import Judge, Verdict


def read_chat(response: Any) -> str:
    """Text of a chat completion.

    Raises:
        JudgeError: The response is not one.
    """
    return _text(response, lambda document: document["choices"][0]["message"]["content"] or "")


def read_completion(response: Any) -> str:
    """Text of a completion; raises as `read_chat`."""
    return _text(response, lambda document: document["choices"][0]["text"])


def _text(response: Any, take: Callable[[Any], Any]) -> str:
    try:
        return str(take(response.json()))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise JudgeError(f"a judge's endpoint sent no completion: {response.text[:200]}") from error


@dataclass(frozen=True)
class EndpointJudge:
    """Asks a model a question about each answer and reads a label out of what it says.

    Refused requests and broken connections are sent again, as by the client itself.

    Attributes:
        sender: Sends requests to the endpoint, with its key and its retries.
        model: Name of the judging model.
        template: The question; `{prompt}` and `{answer}` stand for the two texts.
        pattern: Regular expression; its first group (or all of it) is what was said.
        by_saying: From what was said, in lower case, to a label. Anything else is unparsable.
        max_tokens: Most tokens of a verdict.
    """

    sender: AsyncSender
    model: str
    template: str
    pattern: str
    by_saying: Mapping[str, str]
    max_tokens: int

    @property
    def labels(self) -> frozenset[str]:
        """Every label it may give."""
        return frozenset(self.by_saying.values())

    async def judge(self, prompt: str, answer: str) -> Verdict:
        """The label of one answer; raises `SteeringClientError` where there is no verdict."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.question(prompt, answer)}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        call = Call("POST", "/v1/chat/completions", read_chat, json=body)
        return self.parse(await self.sender.send(call))

    async def close(self) -> None:
        """Close its connections."""
        await self.sender.close()

    def question(self, prompt: str, answer: str) -> str:
        """The template with the two texts in it; braces in them stay as they are."""
        texts = {"{prompt}": prompt, "{answer}": answer}
        return re.sub(r"\{prompt\}|\{answer\}", lambda match: texts[match[0]], self.template)

    def parse(self, said: str) -> Verdict:
        """The label in what the model said."""
        found = re.search(self.pattern, said, re.IGNORECASE)
        if found is None:
            return Verdict(None, said)
        word = found[1] if found.re.groups else found[0]
        return Verdict(self.by_saying.get(word.strip().lower()), said)


class RemoteSpec(BaseModel):
    """What a suite states of a judge behind an endpoint.

    Attributes:
        base_url: Address of the endpoint, without `/v1`.
        model: Name of the judging model.
        api_key_env: Environment variable that holds the key; none: no key.
        max_retries: Times a refused or unconnected request is sent again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: Annotated[str, Field(pattern=r"^https?://")]
    model: str
    api_key_env: str | None = None
    max_retries: Annotated[int, Field(ge=0)] = 4

    def sender(self, transport: httpx.AsyncBaseTransport | None) -> AsyncSender:
        """A sender of requests to the endpoint.

        Raises:
            EvaluationError: The key's variable is not set.
        """
        key = None if self.api_key_env is None else os.environ.get(self.api_key_env)
        if self.api_key_env is not None and not key:
            raise EvaluationError(
                f"the environment has no {self.api_key_env}, which a judge's api_key_env names"
            )
        connection = Connection(self.base_url, key, max_retries=self.max_retries)
        return AsyncSender(connection, transport)


class EndpointSpec(RemoteSpec):
    """`kind: endpoint`; the fields of `EndpointJudge`."""

    kind: Literal["endpoint"]
    template: str
    pattern: str = r"\w+"
    by_saying: Annotated[dict[str, str], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] = 16

    @field_validator("template")
    @classmethod
    def _has_places(cls, value: str) -> str:
        if "{answer}" not in value:
            raise ValueError("the template has no {answer}; put it where the answer belongs")
        return value

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    @property
    def labels(self) -> frozenset[str]:
        """Every label it may give."""
        return frozenset(self.by_saying.values())

    def make(self, transport: httpx.AsyncBaseTransport | None) -> Judge:
        """The judge; raises as `sender`."""
        saying = {said.lower(): label for said, label in self.by_saying.items()}
        rest: Any = (self.template, self.pattern, saying, self.max_tokens)
        return EndpointJudge(self.sender(transport), self.model, *rest)
