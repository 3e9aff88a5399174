"""The endpoints as MCP tools, asked over the protocol by its own client against a demo that really listens."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import gradio.mcp
import pytest
from tests.ui_support import FakeAnalyzer, serving, write_clip

from msademo.errors import InputError
from msademo.ui import tools
from msademo.ui.page import build_demo, launch
from msademo.ui.received import ELSEWHERE

ROOT = Path(__file__).resolve().parent.parent


def test_wanted_by_flag_or_variable(monkeypatch):
    monkeypatch.delenv("GRADIO_MCP_SERVER", raising=False)
    assert tools.wanted(True) and not tools.wanted()
    monkeypatch.setenv("GRADIO_MCP_SERVER", "True")
    assert tools.wanted()


def test_without_the_package_one_sentence(monkeypatch):
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="requirements-mcp.txt"):
        launch(None, None, mcp=True)            # said before anything is loaded or listens
    assert gradio.mcp.GradioMCPServer is not tools.Tools


def test_behind_a_login_one_sentence(monkeypatch):
    monkeypatch.setattr(tools.access, "current", lambda: tools.access.read({"MSADEMO_LOGIN": "me:a long password"}))
    with pytest.raises(InputError, match="MSADEMO_LOGIN"):
        tools.prepare()


def test_files_are_refused_wherever_they_stand():
    for value in ({"video": {"path": "/etc/passwd"}}, {"captions": {"tone": [{"x": {"path": "a", "meta": {"_type": "gradio.FileData"}}}]}}):
        with pytest.raises(InputError) as caught:
            tools.refuse_files(value)
        assert str(caught.value) == ELSEWHERE
    tools.refuse_files({"video": "path", "captions": {"tone": "path"}, "models": ["path"]})


def test_the_extra_belongs_to_the_pinned_gradio():
    pinned = re.search(r"^gradio==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M)[1]
    assert f"\ngradio[mcp]=={pinned}\n" in (ROOT / "requirements-mcp.txt").read_text()


class Asked(BaseHTTPRequestHandler):
    """A server that remembers whether anybody came."""

    paths: list[str] = []

    def do_GET(self):
        self.paths.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def elsewhere():
    server = HTTPServer(("127.0.0.1", 0), Asked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/talk.mp4"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def served():
    pytest.importorskip("mcp", reason="mcp is not installed (requirements-mcp.txt)")
    before = gradio.mcp.GradioMCPServer
    tools.prepare()
    try:
        demo = build_demo(analyzer := FakeAnalyzer())
        with serving(demo, mcp_server=True) as url:
            yield analyzer, url
    finally:
        gradio.mcp.GradioMCPServer = before


def session(url: str, work):
    """What `work` makes of a session, over streamable HTTP."""
    import anyio
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def main():
        async with streamablehttp_client(f"{url}gradio_api/mcp/") as (read, write, _):
            async with ClientSession(read, write) as opened:
                await opened.initialize()
                return await work(opened)

    return anyio.run(main)


def call(url: str, name: str, **arguments):
    answer = session(url, lambda opened: opened.call_tool(name, arguments))
    return answer.isError, answer.content[0].text


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = write_clip(tmp_path_factory.mktemp("clips") / "talk.mp4", 1.0)
    return "data:video/mp4;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def test_the_tools_say_what_they_do(served):
    found = {tool.name: tool for tool in session(served[1], lambda opened: opened.list_tools()).tools}
    assert list(found) == ["analyze_clip", "analyze_post", "analyze_clips", "analyze_posts"]
    for tool in found.values():
        assert tool.description.startswith("Sentiment of") and "Returns:" in tool.description and "upload_file_to_gradio" not in tool.description
        for name, schema in tool.inputSchema["properties"].items():
            assert len(schema["description"]) > 15 and "http url" not in json.dumps(schema), name
    properties = found["analyze_clip"].inputSchema["properties"]
    assert properties["video"]["type"] == "string" and properties["text_ratio"]["default"] == 0.0 and properties["maps"]["default"] is False
    assert found["analyze_clip"].inputSchema["required"] == ["video"]


def test_answers_are_json(served, data):
    wrong, text = call(served[1], "analyze_clip", video=data, transcript="what a lovely day", text_ratio=0.5)
    assert not wrong and json.loads(text)["modalities"]["text"]["ratio"] == 0.5 and len(json.loads(text)["words"]) == 4
    wrong, text = call(served[1], "analyze_clips", videos=[data, "data:video/mp4;base64,AAAA"], transcripts=["a b", None])
    rows = json.loads(text)
    assert not wrong and len(rows[0]["result"]["words"]) == 2 and rows[1]["error"]


def test_progress_comes_while_it_goes_on(served, data):
    heard = []

    async def ask(opened):
        async def hear(progress, total, message):
            heard.append(message)
        return await opened.call_tool("analyze_clips", {"videos": [data] * 6, "transcripts": ["a"] * 6}, progress_callback=hear)

    assert len(json.loads(session(served[1], ask).content[0].text)) == 6
    assert any("clip" in (message or "") for message in heard), heard


def test_what_is_wrong_comes_as_one_sentence(served, data):
    for said, arguments in (("from 0", {"video": data, "text_ratio": 2}), ("magic", {"video": data, "kind": "magic"}), ("0 items", None)):
        wrong, text = call(served[1], "analyze_clips", videos=[]) if arguments is None else call(served[1], "analyze_clip", transcript="a", **arguments)
        assert wrong and said in text and "\n" not in text


def test_no_address_is_fetched_and_no_file_of_the_server_read(served, elsewhere, tmp_path):
    analyzer, url = served
    secret, opens = write_clip(tmp_path / "secret.mp4", 1.0), analyzer.opens
    marked = {"meta": {"_type": "gradio.FileData"}}
    for given in (secret, elsewhere, f"file://{secret}", f"{elsewhere}/gradio_api/file={secret}", {"path": secret, **marked}, {"path": elsewhere, **marked}):
        for name, arguments in (("analyze_clip", {"video": given, "transcript": "a"}), ("analyze_post", {"image": given}), ("analyze_post", {"text": "a", "captions": {"tone": given}}),
                                ("analyze_clips", {"videos": [given]}), ("analyze_posts", {"images": [given]})):
            if name == "analyze_post" and "captions" in arguments and isinstance(given, str):
                continue                        # there a text is a text
            wrong, text = call(url, name, **arguments)
            assert wrong or json.loads(text)[0]["error"], (name, given)
            assert str(tmp_path) not in text.replace(str(given), "") and "gradio/" not in text.replace("gradio_api/", "")
    assert analyzer.opens == opens and not Asked.paths
