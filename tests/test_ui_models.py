"""The Models tab: what is found, what is said of it, and choosing another checkpoint, also for clips and posts that are open."""

import json
import shutil
from types import SimpleNamespace

import pytest
from safetensors.numpy import save_file
from tests.post_support import COFFEE, write_spro
from tests.ui_support import FakeAnalyzer

import numpy as np

from msademo import inventory
from msademo.analyzer import Analyzer
from msademo.errors import InputError
from msademo.ui import models
from msademo.ui.page import build_demo


@pytest.fixture
def here(checkpoints, tmp_path):
    """A folder of its own with all that an Analyzer needs, a second PGLH, a card, and files that are no checkpoints."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoints, folder)
    (folder / "pglh.md").write_text("# PGLH\n<script>alert(1)</script>", "utf-8")
    (folder / "cut.safetensors").write_bytes(b"cut off")
    save_file({"x": np.zeros(3, np.float32)}, folder / "foreign.safetensors")
    return folder


def second_pglh(folder, **changed):
    """PGLH again with other weights and another name."""
    from safetensors import safe_open
    from safetensors.torch import save_file as save
    with safe_open(folder / "pglh.safetensors", framework="pt") as file:
        meta, tensors = json.loads(file.metadata()["msademo"]), {name: file.get_tensor(name) for name in file.keys()}
    tensors = {name: tensor * 1.5 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save(tensors, folder / "pglh_b.safetensors", metadata={"msademo": json.dumps(meta | changed)})


def events(demo):
    return {f.fn.__name__: f.fn for f in demo.fns.values() if f.fn and f.fn.__module__ == "msademo.ui.models"}


def test_every_checkpoint_is_found_and_told(here):
    second_pglh(here)
    second_pglh(here, extractor={"text_sha256": "0" * 64, "face_sha256": "0" * 64})
    shutil.move(here / "pglh_b.safetensors", here / "pglh_other.safetensors")
    second_pglh(here)
    analyzer = Analyzer(here)
    found = {one.file: one for one in inventory.found_in(analyzer)}
    assert found["pglh.safetensors"].used_as == "pglh" and found["pglh.safetensors"].parameters > 1000 and found["text.safetensors"].used_as == "text"
    assert "cannot be read" in found["cut.safetensors"].problem and "cannot be read" in found["foreign.safetensors"].problem
    assert "another text.safetensors" in found["pglh_other.safetensors"].problem and found["pglh_b.safetensors"].problem == ""
    assert inventory.choices(list(found.values()), "pglh") == ["pglh.safetensors", "pglh_b.safetensors"]
    drawn = models.cards(list(found.values()), {"pglh": 12.3})
    assert "<script" not in drawn and "&lt;script&gt;" in drawn and "12 ms" in drawn and drawn.count("in use: ") == 6 and str(here) not in drawn
    for word in ("Data", "Terms", "Protocol", "Metrics", "Parameters", "Size", "Speed"):
        assert f"<dt>{word}</dt>" in drawn
    assert "no checkpoint at all" in models.cards([], {})


def test_another_checkpoint_is_used_and_an_open_clip_knows(here):
    second_pglh(here)
    analyzer = Analyzer(here)
    opened = analyzer.open(None, "what a lovely day")
    before = analyzer.analyze(opened, missing=0.3)
    inventory.choose(analyzer, "pglh", "pglh_b.safetensors")
    assert inventory.in_use(analyzer)["pglh"] == "pglh_b.safetensors"
    after, fresh = analyzer.analyze(opened, missing=0.3), analyzer.analyze(analyzer.open(None, "what a lovely day"), missing=0.3)
    now, wanted = after.predictions["pglh"], fresh.predictions["pglh"]
    assert (now.score, now.complete) == (pytest.approx(wanted.score), pytest.approx(wanted.complete)) and now.score != before.predictions["pglh"].score
    assert after.predictions["pgmf-student"].score == before.predictions["pgmf-student"].score and after.notes == fresh.notes
    for slot, file in (("pglh", "pgmf_teacher.safetensors"), ("pglh", "../x.safetensors"), ("text", "text.safetensors"), ("magic", "x")):
        with pytest.raises(InputError, match="no such checkpoint"):
            inventory.choose(analyzer, slot, file)
    assert inventory.in_use(analyzer)["pglh"] == "pglh_b.safetensors"


def test_another_spro_is_used_and_an_open_post_knows(post_checkpoints, tmp_path):
    from msademo.post_analyzer import PostAnalyzer
    folder = tmp_path / "posts"
    shutil.copytree(post_checkpoints, folder)
    write_spro(folder / "spro_b.safetensors", 7)
    posts = PostAnalyzer(folder)
    opened = posts.open(COFFEE, "cold coffee")
    before = posts.analyze(opened, 0.3, overlays=False)
    analyzer = SimpleNamespace(folder=folder, posts=posts, shelf=SimpleNamespace(files={}))
    inventory.choose(analyzer, "spro", "spro_b.safetensors")
    after, fresh = posts.analyze(opened, 0.3), posts.analyze(posts.open(COFFEE, "cold coffee"), 0.3)
    assert after.to_dict() == fresh.to_dict() and after.to_dict()["paths"] != before.to_dict()["paths"]


def test_the_tab_says_what_it_is_not_for_and_chooses(here, monkeypatch):
    second_pglh(here)
    analyzer = Analyzer(here)
    demo = build_demo(analyzer)
    said = {block.elem_id: block.value for block in demo.blocks.values() if getattr(block, "elem_id", None) in ("models-purpose", "models-cards")}
    assert "Not for decisions about people" in said["models-purpose"] and "pglh.safetensors" in said["models-cards"]
    use = events(demo)["use"]
    message, cards = use("pglh", "pglh_b.safetensors")
    assert "in use now" in message and 'pglh_b.safetensors <span class="model-used">' in cards
    assert "no such checkpoint" in use("pglh", "x.safetensors")[0] and "No checkpoint is chosen" in use("pglh", None)[0]
    monkeypatch.setenv("SPACE_ID", "someone/space")
    assert "public Space" in use("pglh", "pglh.safetensors")[0]


def test_no_model_changes_under_a_run(here):
    import gradio as gr
    with gr.Blocks() as demo:
        with gr.Tab("Models") as tab:
            models.build_models_tab(Analyzer(here), tab, lambda: True)
    assert "A run is going on" in events(demo)["use"]("pglh", "pglh.safetensors")[0]


def test_speed_is_measured_for_each_model_in_use():
    from tests.test_page import examples
    clip = examples()[0]
    found = inventory.speed(SpeedAnalyzer(), clip["file"], clip["transcript"], None, "", runs=1)
    assert set(found) == {"pglh", "pgmf-student", "pgmf-teacher", "spro"} and all(value >= 0 for value in found.values())


class SpeedAnalyzer(FakeAnalyzer):
    def __init__(self):
        super().__init__()
        self.posts = SimpleNamespace(file="spro.safetensors", open=lambda picture, words: None, analyze=lambda post, missing, overlays: None)

    def warm(self):
        return SimpleNamespace(absent={})


def test_metrics_are_a_table_of_conditions_and_escaped():
    protocol, table = models._measured({"metrics": {"split": "valid", "mosi_acc2@0.0": 0.9, "mosi_acc2@0.3": 0.8, "mae@text absent": 1.1, "fusion": {"macro_f1": 0.7}, "<b>": 1.0}})
    assert protocol == "valid" and "<b>" not in table
    for head in ("complete", "30% missing", "text absent", "together"):
        assert f'<th scope="col">{head}</th>' in table
    assert '<th scope="row">MOSI Acc-2</th><td>0.900</td><td>0.800</td>' in table and "Macro F1" in table and "&lt;b&gt;" in table
    assert models._measured({"metrics": "none"}) == ("see the card", "see the card")
