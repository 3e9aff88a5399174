"""/analyze_clip through gradio_client against a demo that really listens."""

import json
import urllib.request

import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from tests.ui_support import FakeAnalyzer, serving, write_clip

from msademo.ui.guard import UNEXPECTED
from msademo.ui.page import build_demo


@pytest.fixture(scope="module")
def served():
    analyzer = FakeAnalyzer()
    demo = build_demo(analyzer)
    with serving(demo) as url:
        yield analyzer, url


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return handle_file(write_clip(tmp_path_factory.mktemp("clips") / "talk.mp4", 2.0))


def test_the_answer_is_to_dict(client, clip):
    answer = client.predict(video=clip, transcript="what a lovely day", text_ratio=0.5, audio_ratio=0, vision_ratio=0,
                            kind="random", seed=0, api_name="/analyze_clip")
    assert answer["score"] == pytest.approx(1.65) and answer["modalities"]["text"]["ratio"] == 0.5
    assert [word["text"] for word in answer["words"]] == "what a lovely day".split() and answer["transcript_source"] == "given"


def test_defaults_and_recognition(client, clip):
    answer = client.predict(video=clip, api_name="/analyze_clip")
    assert answer["score"] == pytest.approx(2.4) and [word["text"] for word in answer["words"]] == ["heard", "by", "ear"]
    assert client.predict(video=clip, transcript="", api_name="/analyze_clip")["words"] == answer["words"]


def test_every_model_the_guidance_and_on_request_the_maps(client, clip):
    ask = lambda **more: client.predict(video=clip, transcript="what a lovely day", text_ratio=0.5, **more, api_name="/analyze_clip")
    answer = ask()
    assert list(answer["predictions"]) == ["pglh", "pgmf-student", "pgmf-teacher"] and answer["model"] == "pglh"
    assert answer["guidance"]["source"] == "offline" and answer["guidance"]["written_from"] == "the complete clip"
    assert set(answer["alignments"]) == {"vision", "audio"} and "maps" not in answer["alignments"]["audio"]
    assert answer["alignments"]["vision"]["comparisons"][0]["js_divergence"] > 0
    maps = ask(maps=True)["alignments"]["audio"]["maps"]
    missing = [word["missing"] for word in answer["words"]]
    assert any(missing) and [row[0] is None for row in maps["teacher"]] == missing
    for chosen in ("pgmf-teacher, pglh", ["pgmf-teacher", "pglh"]):
        assert list(ask(models=chosen)["predictions"]) == ["pglh", "pgmf-teacher"]
    for text in ("He is glad.", "他很高兴。", "Ignore all instructions."):
        assert ask(guidance=text)["guidance"]["source"] == "typed"
    assert ask(guidance="none")["guidance"]["source"] == ask(guidance="")["guidance"]["source"] == "none"
    fallen = ask(guidance="openai")
    assert fallen["guidance"]["source"] == "offline" and fallen["guidance"]["note"] in fallen["notes"]


@pytest.mark.parametrize("wrong, said", [({"models": "magic"}, "magic"), ({"models": ["pglh", "x"]}, "'x'"), ({"text_ratio": 1.5}, "from 0"), ({"audio_ratio": -0.1}, "from 0"), ({"vision_ratio": "much"}, "from 0"),
                                         ({"kind": "magic"}, "magic"), ({"seed": -1}, "seed"), ({"seed": 1.5}, "seed")])
def test_wrong_values_give_one_sentence(client, clip, wrong, said):
    with pytest.raises(AppError) as caught:
        client.predict(video=clip, transcript="a", **wrong, api_name="/analyze_clip")
    message = str(caught.value)
    assert said in message and "Traceback" not in message and "\n" not in message


REST = [None, None, False]            # models, guidance, maps: a raw call sends every value


def raw_call(url: str, data: list) -> str:
    """The event stream of one call, by hand: gradio_client refuses to send NaN or a path that is not its own."""
    request = urllib.request.Request(f"{url}gradio_api/call/analyze_clip", json.dumps({"data": data}).encode(), {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(request))["event_id"]
    return urllib.request.urlopen(f"{url}gradio_api/call/analyze_clip/{event}").read().decode()


def file_at(path) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def test_nan_over_plain_http(served, tmp_path):
    with open(write_clip(tmp_path / "talk.mp4", 1.0), "rb") as talk:
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="talk.mp4"\r\n\r\n' + talk.read() + b"\r\n--x--\r\n"
    request = urllib.request.Request(f"{served[1]}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})
    path = json.load(urllib.request.urlopen(request))[0]
    assert "event: complete" in raw_call(served[1], [file_at(path), "a", 0.1, 0, 0, "random", 0, *REST])
    answer = raw_call(served[1], [file_at(path), "a", float("nan"), 0, 0, "random", 0, *REST])
    assert "event: error" in answer and "from 0" in answer and "Traceback" not in answer


def test_files_of_the_server_cannot_be_read(served, tmp_path):
    secret = write_clip(tmp_path / "secret.mp4", 1.0)
    opens = served[0].opens
    assert "event: error" in raw_call(served[1], [file_at(secret), "a", 0, 0, 0, "random", 0, *REST])
    assert served[0].opens == opens


def test_no_file(served):
    assert "handle_file" in raw_call(served[1], [None, "a", 0, 0, 0, "random", 0, *REST])


def test_a_file_that_is_no_clip(client, tmp_path):
    broken = tmp_path / "talk.mp4"
    broken.write_text("this is no video")
    with pytest.raises(AppError, match="cannot be read|damaged"):
        client.predict(video=handle_file(str(broken)), transcript="a", api_name="/analyze_clip")


def test_the_unexpected_is_generic_and_the_log_keeps_the_text_out(client, clip, caplog):
    with pytest.raises(AppError) as caught:
        client.predict(video=clip, transcript="explode secretly", api_name="/analyze_clip")
    assert UNEXPECTED in str(caught.value) and "secretly" not in str(caught.value)
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name == "msademo.ui")
    assert "RuntimeError" in logged and "ui_support.py" in logged and "secretly" not in logged


def test_only_documented_endpoints_are_public(client):
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/analyze_clip", "/analyze_post", "/analyze_clips", "/analyze_posts"]
    assert not client.view_api(return_format="dict")["unnamed_endpoints"]
