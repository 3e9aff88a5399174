"""The endpoints as tools of the Model Context Protocol (MCP), through Gradio's own server for it, made safe for strangers and plain for programs."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any, Mapping

import gradio.mcp

from msademo.errors import InputError
from msademo.ui import access
from msademo.ui.received import ELSEWHERE

ABSENT = "MCP needs the package mcp, which is not installed; run `pip install -r requirements-mcp.txt`, or start without --mcp and GRADIO_MCP_SERVER."

BEHIND_LOGIN = "MCP's tools cannot be offered behind a login, which their programs have no way through; start without --mcp and GRADIO_MCP_SERVER, or without MSADEMO_LOGIN."


def wanted(flag: bool = False) -> bool:
    """Was MCP asked for, by the flag or by Gradio's variable?"""
    return flag or os.environ.get("GRADIO_MCP_SERVER", "").strip().lower() == "true"


def refuse_files(value: Any) -> None:
    """InputError for anything that Gradio's client would take for a file. That client runs in the server and sends what a path names,
    whoever wrote the path: with it, a caller could have any file of the server analysed, or copied to where it can be downloaded."""
    if isinstance(value, Mapping):
        if "path" in value:
            raise InputError(ELSEWHERE)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            refuse_files(item)


class Tools(gradio.mcp.GradioMCPServer):
    """Files come as text, which the endpoints read themselves (received.py), so an address is fetched by nobody; answers go as JSON."""

    def convert_strings_to_filedata(self, value: Any, filedata_positions: list) -> Any:
        refuse_files(value)
        return value

    def simplify_filedata_schema(self, schema: dict) -> tuple[dict, list]:
        simplified, _ = super().simplify_filedata_schema(schema)
        return _plain(simplified), []

    def get_input_schema(self, tool_name: str, parameters: dict[str, str] | None = None) -> tuple[dict, list]:
        schema, files = super().get_input_schema(tool_name, parameters)
        for parameter in self.api_info["named_endpoints"][self.tool_to_endpoint[tool_name]]["parameters"]:
            if parameter["parameter_has_default"]:         # Gradio leaves out 0, false and null
                schema["properties"][parameter["parameter_name"]]["default"] = parameter["parameter_default"]
        return schema | {"additionalProperties": False}, files

    def postprocess_output_data(self, data: Any, root_url: str) -> list:
        return [self.types.TextContent(type="text", text=json.dumps(output, ensure_ascii=False)) for output in data]


def _plain(node: Any) -> Any:
    """Gradio calls every file an address that it fetches, which ours are not; what they are stands in their description."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if not (key == "format" and str(value).startswith("Gradio File"))}
    return [_plain(item) for item in node] if isinstance(node, list) else node


def prepare() -> None:
    """Have Gradio start our server of tools instead of its own. InputError without the package that both need, or where a login is asked for."""
    if access.current().login:
        raise InputError(BEHIND_LOGIN)
    if importlib.util.find_spec("mcp") is None:
        raise InputError(ABSENT)
    gradio.mcp.GradioMCPServer = Tools
