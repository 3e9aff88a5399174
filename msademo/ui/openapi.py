"""The OpenAPI document of the endpoints, in the place of the one Gradio makes, which tells neither what parameters mean nor what is answered."""

from __future__ import annotations

import gradio as gr
from gradio import route_utils, utils
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from msademo.errors import InputError
from msademo.ui.answers import ANSWERS, SCHEMAS

ADDRESS = "/gradio_api/openapi.json"
HOW = ("A call has two steps: POST its parameters to /gradio_api/call/v2/NAME, which answers {\"event_id\": ...}; then GET /gradio_api/call/NAME/EVENT_ID, a stream of "
       "server-sent events that ends with `event: complete` and the answer, or with `event: error` and one sentence. Files are uploaded before, or sent as a data: "
       "address; addresses of other servers are not fetched.")
FILE = {"description": "The path that POST /gradio_api/upload gave, a data: address in base64, or the object that gradio_client's handle_file makes of an upload.",
        "anyOf": [{"type": "string"}, {"type": "object", "required": ["path"], "properties": {
            "path": {"type": "string"}, "orig_name": {"type": ["string", "null"]}, "meta": {"type": "object", "properties": {"_type": {"const": "gradio.FileData"}}}}}]}


def _schema(info) -> object:
    """Gradio's schema of a parameter, with each long description of a file replaced by a reference to ours."""
    if isinstance(info, dict):
        if "properties" in info and "path" in info["properties"]:
            return {"$ref": "#/components/schemas/File"}
        return {name: _schema(value) for name, value in info.items() if name not in ("additional_description", "title", "$defs")}
    return [_schema(value) for value in info] if isinstance(info, list) else info


def _call(name: str, endpoint: dict, meanings: dict[str, str], returns: list[str]) -> dict:
    properties, required = {}, []
    for parameter in endpoint["parameters"]:
        title = parameter["parameter_name"]
        properties[title] = {**_schema(parameter["type"]), "description": meanings[title]}
        if parameter["parameter_has_default"]:
            properties[title]["default"] = parameter["parameter_default"]
        else:
            required.append(title)
    body = {"type": "object", "properties": properties, "additionalProperties": False, **({"required": required} if required else {})}
    answer = {"type": "object", "required": ["event_id"], "properties": {"event_id": {"type": "string"}}}
    return {"operationId": name, "summary": endpoint["description"], "description": f"Answers, under the event_id: {' '.join(returns)}",
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {"200": {"description": "The call is in the queue.", "content": {"application/json": {"schema": answer}}},
                          "503": {"description": "The queue is full; try again in a while."}}}


def _result(name: str) -> dict:
    event = {"name": "event_id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "What the POST answered."}
    return {"operationId": f"{name}_result", "summary": f"The answer of a call of {name}", "parameters": [event],
            "responses": {"200": {
                "description": "Events `heartbeat`, then `complete`, whose data is a JSON array with the answer as its only element, or `error`, whose data is {\"error\": a sentence}.",
                "content": {"text/event-stream": {"schema": {"type": "string", "contentMediaType": "application/json", "contentSchema": {
                    "type": "array", "prefixItems": [{"$ref": f"#/components/schemas/{ANSWERS[name]}"}], "minItems": 1, "maxItems": 1}}}}}}}


def _upload() -> dict:
    files = {"type": "object", "required": ["files"], "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}}}
    paths = {"type": "array", "items": {"type": "string"}}
    return {"operationId": "upload", "summary": "Upload files; answers the path of each, by which a call names it. Uploads are deleted after some hours.",
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": files}}},
            "responses": {"200": {"description": "The paths.", "content": {"application/json": {"schema": paths}}}, "413": {"description": "A file is too large."}}}


def document(demo: gr.Blocks, root: str = "/") -> dict:
    """OpenAPI 3.1 of all public endpoints of a demo. root: the address that visitors know the demo by."""
    endpoints, functions = demo.get_api_info()["named_endpoints"], {function.api_name: function.fn for function in demo.fns.values()}
    paths = {"/gradio_api/upload": {"post": _upload()}}
    for address, endpoint in endpoints.items():
        name = address.strip("/")
        if name not in ANSWERS:
            raise InputError(f"The endpoint {address} has no answer in msademo/ui/answers.py; describe it there.")
        _, meanings, returns = utils.get_function_description(functions[name])
        paths[f"/gradio_api/call/v2{address}"] = {"post": _call(name, endpoint, meanings, returns)}
        paths[f"/gradio_api/call{address}/{{event_id}}"] = {"get": _result(name)}
    return {"openapi": "3.1.0", "info": {"title": demo.title, "version": "1", "description": HOW}, "servers": [{"url": root}], "paths": paths,
            "components": {"schemas": {"File": FILE, **SCHEMAS}}}


def _serve(request: Request) -> JSONResponse:
    root = route_utils.get_root_url(request=request, route_path=ADDRESS, root_path=request.app.root_path)
    return JSONResponse(document(request.app.get_blocks(), str(root)))


def routes() -> list[Route]:
    """For launch(app_kwargs={"routes": ...}): what is there first answers first."""
    return [Route(ADDRESS, _serve)]
