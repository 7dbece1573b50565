"""`/v1/tokenize`, `/v1/detokenize` and `/tokenizer_info`, also under the names vLLM gives them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from server.api.deps import Services, ServicesDep, operation
from server.api.generation.prompts import check_token_ids, encode_text, render_chat
from server.api.http.body import Strictness
from server.api.http.errors import ModelNotFoundError
from server.api.request_body import JsonBody
from server.api.schemas.tokenize import (
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    TokenizerInfo,
)
from server.auth.permissions import Permission

router = APIRouter(tags=["OpenAI"])

_TokenizeBody = Annotated[
    TokenizeRequest,
    Depends(JsonBody(TokenizeRequest, Strictness.OPENAI, lambda limits: limits.chat)),
]
_DetokenizeBody = Annotated[
    DetokenizeRequest,
    Depends(JsonBody(DetokenizeRequest, Strictness.OPENAI, lambda limits: limits.prompts)),
]


@router.post("/v1/tokenize", response_model=Tokenized, openapi_extra=operation(Permission.CHAT))
@router.post("/tokenize", response_model=Tokenized, openapi_extra=operation(Permission.CHAT))
async def tokenize(body: _TokenizeBody, request: Request, services: ServicesDep) -> Response:
    """Token ids of a text, or of a chat as the model is given it."""
    _check_model(body.model, services.engine.info().model_name)
    return await services.offload.run(request, lambda: JSONResponse(_tokens(services, body)))


@router.post("/v1/detokenize", response_model=Detokenized, openapi_extra=operation(Permission.CHAT))
@router.post("/detokenize", response_model=Detokenized, openapi_extra=operation(Permission.CHAT))
async def detokenize(body: _DetokenizeBody, request: Request, services: ServicesDep) -> Response:
    """The text of token ids."""
    _check_model(body.model, services.engine.info().model_name)
    return await services.offload.run(request, lambda: JSONResponse(_text(services, body)))


@router.get("/v1/tokenizer_info", openapi_extra=operation(Permission.CHAT))
@router.get("/tokenizer_info", openapi_extra=operation(Permission.CHAT))
async def tokenizer_info(services: ServicesDep) -> TokenizerInfo:
    """The special tokens and the chat template."""
    tokenizer = services.engine.tokenizer
    return TokenizerInfo(
        tokenizer_class=type(tokenizer).__name__,
        eos_token=tokenizer.eos_token,
        bos_token=tokenizer.bos_token,
        pad_token=tokenizer.pad_token,
        chat_template=tokenizer.chat_template,
        chat_template_variables={n: list(v) for n, v in tokenizer.template_variables.items()},
        thinking_markers=list(tokenizer.thinking_markers or ()) or None,
        add_bos_token=tokenizer.adds_bos_token,
    )


def _tokens(services: Services, body: TokenizeRequest) -> dict[str, Any]:
    tokenizer, info = services.engine.tokenizer, services.engine.info()
    if body.prompt is not None:
        prompt = encode_text(
            tokenizer,
            body.prompt,
            info.max_model_len,
            add_special_tokens=body.add_special_tokens,
        )
    else:
        prompt = render_chat(tokenizer, body, info.max_model_len)
    answer: dict[str, Any] = {
        "tokens": list(prompt.token_ids),
        "count": len(prompt.token_ids),
        "max_model_len": info.max_model_len,
    }
    if body.return_token_strs:
        answer["token_strs"] = [tokenizer.token_text(token_id) for token_id in prompt.token_ids]
    return answer


def _text(services: Services, body: DetokenizeRequest) -> dict[str, Any]:
    check_token_ids(body.tokens, services.engine.info(), "tokens")
    return {"prompt": services.engine.tokenizer.decode(body.tokens)}


def _check_model(model: str | None, served: str) -> None:
    if model is not None and model != served and not model.startswith(f"{served}:"):
        raise ModelNotFoundError.of(model, served)
