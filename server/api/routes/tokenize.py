"""`/v1/tokenize`, `/v1/detokenize` and `/tokenizer_info`, also under the names vLLM gives them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from server.api.deps import Services, ServicesDep, operation
from server.api.generation.prompts import check_token_ids, encode_text, render_chat
from server.api.generation.steering_choice import read_request
from server.api.http.body import Document
from server.api.http.errors import ModelNotFoundError
from server.api.schemas.tokenize import DetokenizeRequest, TokenizeRequest
from server.auth.permissions import KeyScope

__all__ = ["router"]

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/tokenize", openapi_extra=operation(KeyScope.CHAT, TokenizeRequest))
@router.post("/tokenize", openapi_extra=operation(KeyScope.CHAT, TokenizeRequest))
async def tokenize(request: Request, services: ServicesDep) -> Response:
    """Token ids of a text, or of a chat as the model is given it."""
    body = await read_request(
        request, services, TokenizeRequest, services.limits.chat, Document.OPENAI
    )
    _check_model(body.model, services.engine.info().model_name)
    return await services.desk.run(request, lambda: JSONResponse(_tokens(services, body)))


@router.post("/v1/detokenize", openapi_extra=operation(KeyScope.CHAT, DetokenizeRequest))
@router.post("/detokenize", openapi_extra=operation(KeyScope.CHAT, DetokenizeRequest))
async def detokenize(request: Request, services: ServicesDep) -> Response:
    """The text of token ids."""
    body = await read_request(
        request, services, DetokenizeRequest, services.limits.prompts, Document.OPENAI
    )
    _check_model(body.model, services.engine.info().model_name)
    return await services.desk.run(request, lambda: JSONResponse(_text(services, body)))


@router.get("/v1/tokenizer_info", openapi_extra=operation(KeyScope.CHAT))
@router.get("/tokenizer_info", openapi_extra=operation(KeyScope.CHAT))
async def tokenizer_info(services: ServicesDep) -> dict[str, Any]:
    """The special tokens and the chat template."""
    tokenizer = services.engine.tokenizer
    return {
        "tokenizer_class": type(tokenizer).__name__,
        "eos_token": tokenizer.eos_token,
        "bos_token": tokenizer.bos_token,
        "pad_token": tokenizer.pad_token,
        "chat_template": tokenizer.chat_template,
        "add_bos_token": tokenizer.adds_bos_token,
    }


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
