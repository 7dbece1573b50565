"""`coxctl`, command by command."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from typer.testing import CliRunner, Result

from coxswain_client import Coxswain
from coxswain_client.cli import app

from .wire import CHAT, DIRECTION, PROFILE, Wire, events

_CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Gladly!"}}]}
_MODELS = {"data": [{"id": "tiny", "max_model_len": 64}, {"id": "tiny:calm", "parent": "tiny"}]}


def _run(wire: Wire, *arguments: str, text: str | None = None) -> Result:
    client = Coxswain(transport=wire, max_retries=0)
    return CliRunner().invoke(app, list(arguments), obj=client, input=text)


def test_a_chat_is_printed_as_it_is_written() -> None:
    wire = Wire(_MODELS, events(_CHUNK, "[DONE]"))
    options = ["--profile", "calm", "--strength", "0.5", "--max-tokens", "9", "--system", "Be kind"]
    result = _run(wire, "chat", "Hi", *options)
    assert (result.exit_code, result.output) == (0, "Gladly!\n")
    body = json.loads(wire.requests[1].content)
    assert body["model"] == "tiny"
    assert body["steering"] == {"profile": "calm", "strength": 0.5}
    assert body["max_tokens"] == 9
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    assert "seed" not in body


def test_a_thought_goes_to_standard_error() -> None:
    choice = {"index": 0, "finish_reason": None}
    thought = {**choice, "delta": {"reasoning_content": "Hm.", "reasoning": "Hm."}}
    wire = Wire(events({**_CHUNK, "choices": [thought]}, _CHUNK, "[DONE]"))
    asked = ["--model", "tiny", "--chat-template-kwargs", '{"enable_thinking": true}']
    result = _run(wire, "chat", "Hi", *asked)
    assert (result.stdout, result.stderr) == ("Gladly!\n", "Hm.")
    assert wire.bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}


def test_a_comparison_prints_both() -> None:
    plain = [{**CHAT["choices"][0], "message": {"role": "assistant", "content": "No."}}]
    answer = {**CHAT, "steering": {**CHAT["steering"], "baseline": {"choices": plain}}}
    wire = Wire(answer)
    result = _run(wire, "chat", "Hi", "--model", "tiny", "--compare", "--profile", "calm")
    assert result.output == "unsteered: No.\nsteered:   Gladly!\n"
    assert wire.bodies[0]["steering"] == {"compare": True, "profile": "calm"}


def test_json_is_the_whole_answer() -> None:
    result = _run(Wire(CHAT), "chat", "Hi", "--model", "tiny", "--json")
    assert json.loads(result.stdout)["steering"]["version"] == 1


def test_a_listing_is_a_table_of_all_pages() -> None:
    pages = {"data": [DIRECTION], "next_cursor": "n"}, {"data": [{**DIRECTION, "name": "gloomier"}]}
    wire = Wire(*pages)
    lines = _run(wire, "directions", "list").output.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "KIND", "SITE", "LAYERS", "WIDTH", "SHA256"]
    assert [line.split()[0] for line in lines[1:]] == ["cheer", "gloomier"]
    assert {line.index("vector") for line in lines[1:]} == {lines[0].index("KIND")}
    assert wire.requests[1].url.params["cursor"] == "n"


def test_a_listing_as_json() -> None:
    result = _run(Wire({"data": [PROFILE]}), "profiles", "list", "--json")
    assert json.loads(result.stdout)[0]["name"] == "cheerful"


def test_upload_sends_the_file(tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    path.write_bytes(b"GGUF")
    wire = Wire(DIRECTION)
    result = _run(wire, "directions", "upload", str(path), "--name", "cheer", "--layer", "2")
    assert json.loads(result.stdout)["version"] == 2
    assert b'filename="v.gguf"' in wire.requests[0].content
    assert b'{"name": "cheer", "layers": [2]}' in wire.requests[0].content


def test_download_writes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    wire = Wire(httpx.Response(200, content=b"\x00\x01"))
    assert _run(wire, "directions", "download", "cheer@2", str(path)).exit_code == 0
    assert path.read_bytes() == b"\x00\x01"


def test_a_profile_comes_from_a_file() -> None:
    document = {"name": "p", "interventions": [], "description": "d"}
    wire = Wire(PROFILE)
    result = _run(wire, "profiles", "create", "-", "--publish", text=json.dumps(document))
    assert result.exit_code == 0
    assert wire.bodies[0] == {**document, "publish": True}


def test_a_file_that_is_no_profile_is_not_sent() -> None:
    for text in ("{", "[]", '{"name": "p"}'):
        wire = Wire(PROFILE)
        result = _run(wire, "profiles", "validate", "-", text=text)
        assert result.exit_code == 1
        assert wire.requests == []


def test_an_alias_is_set() -> None:
    wire = Wire({"alias": "prod", "profile": "cheerful"})
    assert _run(wire, "aliases", "set", "prod", "cheerful@2").exit_code == 0
    assert wire.bodies[0] == {"profile": "cheerful@2"}


def test_a_key_is_made() -> None:
    wire = Wire({"id": "k1", "name": "lab", "scopes": ["chat"], "secret": "sk-cox-1"})
    options = ["--scope", "chat", "--scope", "read", "--profile", "calm"]
    result = _run(wire, "keys", "create", "lab", *options)
    assert json.loads(result.stdout)["secret"] == "sk-cox-1"
    body = {"name": "lab", "scopes": ["chat", "read"], "profiles_allow": ["calm"]}
    assert wire.bodies[0] == body


def test_an_error_is_one_line() -> None:
    body = {"error": {"message": "direction not found", "code": "direction_not_found"}}
    result = _run(Wire(httpx.Response(404, json=body)), "directions", "get", "nope")
    assert (result.exit_code, result.output) == (1, "Error: direction not found\n")


def test_readiness_is_the_exit_status() -> None:
    assert _run(Wire(httpx.Response(200)), "ready").exit_code == 0
    assert _run(Wire(httpx.Response(503)), "ready").exit_code == 1


def test_models_are_listed() -> None:
    lines = _run(Wire(_MODELS), "models").output.splitlines()
    assert lines[2].split() == ["tiny:calm", "tiny", "-"]


def test_every_command_has_help() -> None:
    for command in ([], ["directions"], ["profiles"], ["aliases"], ["keys"]):
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.output
