"""What programs ask of the page besides one clip: many items in one call, files sent in every way, and the OpenAPI document."""

import base64
import json
import re
import subprocess
import time
import urllib.request
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from tests.ui_support import FakeAnalyzer, serving, write_clip

from msademo.analyzer import CHECKPOINTS, Analyzer
from msademo.errors import InputError
from msademo.ui.answers import ANSWERS, SCHEMAS
from msademo.ui.batch_api import MOST
from msademo.ui.guard import UNEXPECTED
from msademo.ui.page import build_demo
from msademo.ui.received import ELSEWHERE, received

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


class FakeWithPosts(FakeAnalyzer):
    """Answers posts too: how many words, and whether there was a picture. A clip of which the transcript is "slow" takes a while."""

    def open(self, path, transcript=None, **more):
        time.sleep(0.3 * (transcript == "slow"))
        return super().open(path, transcript, **more)

    def post(self, image, text=None, missing=None, seed=0, captions=None):
        if image is None and not text:
            raise InputError("There is neither a picture nor a text.")
        return SimpleNamespace(to_dict=lambda: {"label": "neutral", "picture": image is not None, "words": len((text or "").split()), "missing": missing})


@pytest.fixture(scope="module")
def served():
    demo = build_demo(analyzer := FakeWithPosts())
    with serving(demo) as url:
        yield analyzer, url


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> str:
    return write_clip(tmp_path_factory.mktemp("clips") / "talk.mp4", 1.0)


# ---- many at once ---------------------------------------------------------------------------------------------------------


def test_a_bad_clip_stops_nobody(client, talk, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("this is no video")
    rows = client.predict(videos=[handle_file(talk), handle_file(str(broken)), handle_file(talk), handle_file(talk)],
                          transcripts=["what a lovely day", None, "explode secretly", None], text_ratio=0.5, api_name="/analyze_clips")
    assert [row["file"] for row in rows] == ["talk.mp4", "broken.mp4", "talk.mp4", "talk.mp4"]
    assert [row["result"] is None for row in rows] == [False, True, True, False] == [row["error"] is not None for row in rows]
    assert "damaged" in rows[1]["error"] or "cannot be read" in rows[1]["error"]
    assert rows[2]["error"] == UNEXPECTED and len(rows[0]["result"]["words"]) == 4 and rows[3]["result"]["words"][0]["text"] == "heard"
    alone = client.predict(video=handle_file(talk), transcript="what a lovely day", text_ratio=0.5, api_name="/analyze_clip")
    assert rows[0]["result"] == alone


def test_progress_is_shown_while_it_goes_on(client, talk):
    job, seen = client.submit(videos=[handle_file(talk)] * 4, transcripts=["slow"] * 4, api_name="/analyze_clips"), set()
    while not job.done():
        seen |= {(unit.desc, unit.length) for unit in job.status().progress_data or []}
        time.sleep(0.05)
    assert len(job.result()) == 4 and seen <= {(f"clip {n} of 4", 4) for n in range(1, 5)} and len(seen) >= 2


def test_posts_come_with_either_half(client):
    picture = handle_file(str(ROOT / "examples" / "coffee.jpg"))
    rows = client.predict(images=[picture, None, None], texts=["too cold", "good", None], image_ratio=0.3, api_name="/analyze_posts")
    assert [(row["result"] or {}).get("picture") for row in rows] == [True, False, None] and rows[2]["error"] == "There is neither a picture nor a text."
    assert rows[0]["file"] == "coffee.jpg" and rows[1]["file"] is None and rows[0]["result"]["missing"] == {"text": 0.0, "image": 0.3}
    assert [row["result"]["words"] for row in client.predict(texts=["one", "one two"], api_name="/analyze_posts")] == [1, 2]
    assert client.predict(images=[picture], api_name="/analyze_posts")[0]["result"]["picture"]


@pytest.mark.parametrize("endpoint, wrong, said", [
    ("/analyze_clips", {"videos": []}, "0 items"), ("/analyze_clips", {"videos": ["x"] * (MOST + 1)}, f"from 1 to {MOST}"), ("/analyze_clips", {"videos": "x"}, "must be a list"),
    ("/analyze_clips", {"videos": ["x"], "transcripts": ["a", "b"]}, "as many of both"), ("/analyze_clips", {"videos": ["x"], "text_ratio": 2}, "from 0"),
    ("/analyze_clips", {"videos": ["x"], "kind": "magic"}, "magic"), ("/analyze_clips", {"videos": ["x"], "models": "magic"}, "magic"),
    ("/analyze_posts", {"texts": ["x"], "captions": "magic"}, "Captions must be"), ("/analyze_posts", {}, "0 items"), ("/analyze_posts", {"texts": ["x"], "seed": -1}, "seed")])
def test_wishes_for_all_are_refused_before_anything_is_read(served, client, endpoint, wrong, said):
    opens = served[0].opens
    with pytest.raises(AppError, match=said) as caught:
        client.predict(**wrong, api_name=endpoint)
    assert "\n" not in str(caught.value) and served[0].opens == opens


# ---- files ----------------------------------------------------------------------------------------------------------------


def asked(url: str, name: str, **body) -> tuple[str, object]:
    """The last event of one call over plain HTTP: its name and its data."""
    request = urllib.request.Request(f"{url}gradio_api/call/v2/{name}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(request))["event_id"]
    lines = urllib.request.urlopen(f"{url}gradio_api/call/{name}/{event}").read().decode().strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


def uploaded(url: str, path: str) -> str:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="talk.mp4"\r\n\r\n' + Path(path).read_bytes() + b"\r\n--x--\r\n"
    return json.load(urllib.request.urlopen(urllib.request.Request(f"{url}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})))[0]


def test_a_file_may_be_an_upload_its_address_or_written_out(served, talk):
    path = uploaded(served[1], talk)
    data = "data:video/mp4;base64," + base64.b64encode(Path(talk).read_bytes()).decode()
    for video in (path, {"path": path}, f"{served[1]}gradio_api/file={path}", data):
        event, answer = asked(served[1], "analyze_clip", video=video, transcript="a b")
        assert event == "complete" and len(answer[0]["words"]) == 2, video[:40]
    event, (rows,) = asked(served[1], "analyze_clips", videos=[path, data], transcripts=["a", "b"])
    assert event == "complete" and [row["file"] for row in rows] == ["talk.mp4", None] and all(row["result"] for row in rows)


def test_no_other_file_and_no_address_is_read(served, talk, tmp_path):
    """With Gradio's mark and without it, alone and in a list; a link inside the upload folder leads out of it as little."""
    opens, (_, url) = served[0].opens, served
    inside = Path(uploaded(url, talk)).parent
    link = inside / "link.mp4"
    link.symlink_to(talk)
    try:
        for given in (talk, {"path": talk}, {"path": str(link)}, str(inside / ".." / ".." / ".." / talk), "http://127.0.0.1:9/talk.mp4", {"path": "http://127.0.0.1:9/talk.mp4"},
                      "file:///etc/passwd", "data:video/mp4,abc", "data:video/mp4;base64,###", "\0", "x" * 5000, {"path": 3}, {}, 7, ["a"]):
            event, said = asked(url, "analyze_clip", video=given, transcript="a")
            assert event == "error" and "Traceback" not in said["error"], given
            assert asked(url, "analyze_post", image=given)[0] == "error"
            assert asked(url, "analyze_clips", videos=[given])[1][0][0]["error"]
    finally:
        link.unlink()
    assert asked(url, "analyze_clip", video={"path": talk})[1]["error"] == ELSEWHERE
    assert served[0].opens == opens


def test_what_is_written_out_is_gone_afterwards():
    with received("data:image/png;base64,aGFsbG8=") as path:
        assert path.endswith(".png") and Path(path).read_bytes() == b"hallo"
    assert not Path(path).exists()
    with received(None) as path:
        assert path is None


# ---- the OpenAPI document ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(served) -> dict:
    return json.load(urllib.request.urlopen(f"{served[1]}gradio_api/openapi.json"))


def test_the_document_says_all_of_every_parameter(served, client, document):
    assert document["openapi"] == "3.1.0" and document["servers"] == [{"url": served[1].rstrip("/")}]
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    for address, endpoint in endpoints.items():
        call = document["paths"][f"/gradio_api/call/v2{address}"]["post"]
        body = call["requestBody"]["content"]["application/json"]["schema"]
        assert list(body["properties"]) == [parameter["parameter_name"] for parameter in endpoint["parameters"]] and len(call["summary"]) > 40
        for parameter in endpoint["parameters"]:
            told = body["properties"][parameter["parameter_name"]]
            assert len(told["description"]) > 15 and {"type", "anyOf", "oneOf", "$ref"} & set(told)
            assert (told["default"] == parameter["parameter_default"]) if parameter["parameter_has_default"] else parameter["parameter_name"] in body["required"]
        stream = document["paths"][f"/gradio_api/call{address}/{{event_id}}"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
        assert stream["contentSchema"]["prefixItems"] == [{"$ref": f"#/components/schemas/{ANSWERS[address.strip('/')]}"}]
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert reference in document["components"]["schemas"]


def check(value, schema: dict, at: str = "answer") -> None:
    """Just what these schemas use of JSON Schema."""
    if "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return check(value, {"type": "null"} if value is None else schema["anyOf"][0], at)
    kinds = {"number": (int, float), "integer": int, "string": str, "boolean": bool, "array": list, "object": dict, "null": type(None)}
    names = schema.get("type", list(kinds))
    names = [names] if isinstance(names, str) else names
    assert any(isinstance(value, kinds[name]) and not (isinstance(value, bool) and name != "boolean") for name in names), f"{at} is {type(value).__name__}, not {names}"
    for number, item in enumerate(value if isinstance(value, list) else ()):
        check(item, schema["items"], f"{at}[{number}]")
    if isinstance(value, dict):
        own, more = schema.get("properties", {}), schema.get("additionalProperties", {})
        assert set(schema.get("required", ())) <= set(value), f"{at} lacks {set(schema['required']) - set(value)}"
        for name, item in value.items():
            assert name in own or more is not False, f"{at}.{name} is not described"
            check(item, own.get(name, more), f"{at}.{name}")


def test_the_check_of_answers_can_fail():
    for value in ({"file": "a", "result": None}, {"file": 3, "result": None, "error": "x"}, {"file": None, "result": {}, "error": None}, {"file": None, "result": None, "error": "x", "y": 1}):
        with pytest.raises(AssertionError):
            check([value], SCHEMAS["ClipRows"])


# ---- the README, with the real models ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    if not all((CHECKPOINTS / f"{name}.safetensors").is_file() for name in ("text", "face", "voice", "pglh", "pgmf_teacher", "pgmf_student", "spro")):
        pytest.skip("the shipped checkpoints are not all here")
    demo = build_demo(analyzer := Analyzer())
    with serving(demo) as url:
        yield analyzer, url


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_readme_runs_as_it_stands(real, monkeypatch):
    analyzer, url = real
    monkeypatch.chdir(ROOT)
    blocks = [block for title in ("The page's API", "Posts") for block in re.findall(r"```python\n(.*?)```", section(title), re.S)]
    assert len(blocks) >= 4 and sum("api_name" in block for block in blocks) >= 3
    names, said = {"analyzer": analyzer}, StringIO()
    with redirect_stdout(said):
        for block in blocks:
            assert "Client(" not in block or "http://127.0.0.1:7860" in block
            exec(compile(block.replace("http://127.0.0.1:7860", url), "README.md", "exec"), names)
    names["client"].close()
    lines = said.getvalue().splitlines()
    assert any(re.match(r"pgmf-teacher -?\d", line) for line in lines) and any(re.match(r"happy\.mp4 -?\d", line) for line in lines)
    assert any(line.startswith("README.md ") and line.endswith(".") for line in lines), "the file that is no clip got its sentence"


@pytest.mark.skipif(which("curl") is None, reason="curl is not installed")
def test_the_readmes_curl_lines_run_as_they_stand(real):
    lines = [line[4:] for line in section("The page's API").splitlines() if line.startswith("    ") and ("curl" in line or "URL=" in line)]
    assert len(lines) == 4
    script = "\n".join(lines).replace("http://127.0.0.1:7860/", real[1])
    answer = subprocess.run(["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "event: complete" in answer.stdout and json.loads(answer.stdout.strip().splitlines()[-1].removeprefix("data: "))[0]["modalities"]["text"]["ratio"] == 0.5


def test_real_answers_are_as_the_document_says(real):
    url = real[1]
    examples = ROOT / "examples"
    client = Client(url, verbose=False)
    try:
        video, image = handle_file(str(examples / "happy.mp4")), handle_file(str(examples / "team.jpg"))
        check(client.predict(video=video, transcript="I love it", text_ratio=0.5, maps=True, api_name="/analyze_clip"), SCHEMAS["ClipResult"])
        check(client.predict(video=video, transcript="I love it", models="pglh", guidance="none", api_name="/analyze_clip"), SCHEMAS["ClipResult"])
        check(client.predict(videos=[video, handle_file(str(ROOT / "README.md"))], transcripts=["a", "b"], api_name="/analyze_clips"), SCHEMAS["ClipRows"])
        check(client.predict(images=[image, None], texts=[None, "good"], image_ratio=0.3, api_name="/analyze_posts"), SCHEMAS["PostRows"])
    finally:
        client.close()
