"""Words of any script, subtitles as people save them, and times that add up."""

from __future__ import annotations

import pytest

from msademo.errors import InputError
from msademo.transcript import (MAX_FILE_BYTES, MAX_WORD_CHARS, Word, assign_times, looks_like_subtitles, parse_subtitles,
                                read_text_file, split_words, subtitle_words)


@pytest.mark.parametrize("text, words", [
    ("I don't know, really!", ["I", "don't", "know,", "really!"]),
    ('He said "so (well-known) what?"', ["He", "said", '"so', "(well-known)", 'what?"']),
    ("也没什么关系了，以后呢。", ["也", "没", "什", "么", "关", "系", "了，", "以", "后", "呢。"]),
    ("他说：「好吧」！", ["他", "说：", "「好", "吧」！"]),
    ("我喜欢Python，真的", ["我", "喜", "欢", "Python，", "真", "的"]),
    ("きれいだ", ["き", "れ", "い", "だ"]),
    ("정말 좋아요", ["정말", "좋아요"]),
    ("great😀😀!!", ["great", "😀", "😀!!"]),
    ("👍🏽 👩‍👩‍👧 🇩🇪🇫🇷 ❤️", ["👍🏽", "👩‍👩‍👧", "🇩🇪", "🇫🇷", "❤️"]),
    ("wait ... what", ["wait", "...", "what"]),
    (" \t\r\n ", []),
    ("\ufeffa\0b\x1b c\u200b \u200d", ["ab", "c\u200b"]),
    ("x\ud800y", ["xy"]),
    ("naïve cafe\u0301 über", ["naïve", "cafe\u0301", "über"]),
])
def test_split_words(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize("text", ["a " * 300, "我" * 300, "😀！" * 100, "a" * 1000, "«¿¡", "(((((", "。。。", "a。b（c）d", "\u0301\u0302 x"])
def test_no_visible_character_is_lost_and_no_word_is_long(text):
    words = split_words(text)
    visible = "".join(text.split())
    assert "".join(words) == visible or text.startswith("\u0301")
    assert all(0 < len(word) <= MAX_WORD_CHARS for word in words)


def test_times_tile_the_span_in_proportion_to_length():
    words = assign_times(["a", "bbb", "cc"], 8.0, 2.0)
    assert [(w.start, w.end) for w in words] == [(2.0, 3.0), (3.0, 6.0), (6.0, 8.0)]
    assert assign_times(["a"], 0.0) == (Word("a"),) and assign_times([], 5.0) == ()


SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> there,
Tom &amp; Ann

2
00:01:03,040 --> 00:01:04,000
{\\an8}I <3 you
"""
VTT = """WEBVTT - title
Kind: captions

STYLE
::cue { color: red }

NOTE this is
a remark

first
00:01.000 --> 00:02.500 align:start position:10%
<v Mary>Hello <00:01.200>there,
<c.loud>Tom &amp; Ann</c>

1:00:03.040 --> 1:00:04.000
I <3 you
"""


@pytest.mark.parametrize("change", [lambda t: t, lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t.replace("\n", "\r"),
                                    lambda t: t.replace("\n\n", "\n\n\n \n"), lambda t: t.rstrip()])
def test_srt_and_vtt_in_every_line_ending(change):
    assert parse_subtitles(change(SRT)) == [(1.0, 2.5, "Hello there, Tom & Ann"), (63.04, 64.0, "I <3 you")]
    assert parse_subtitles(change(VTT)) == [(1.0, 2.5, "Hello there, Tom & Ann"), (3603.04, 3604.0, "I <3 you")]
    assert looks_like_subtitles(change(SRT)) and looks_like_subtitles(change(VTT))


def test_cues_without_blank_lines_between_and_out_of_order():
    text = "2\n00:00:05,000 --> 00:00:06,000\nlater 7\n1\n00:00:01.5 --> 00:00:02\nsooner\n42\n"
    assert parse_subtitles(text) == [(1.5, 2.0, "sooner 42"), (5.0, 6.0, "later 7")]


def test_bad_cues_are_skipped_and_nothing_readable_is_refused():
    good = "00:00:01,000 --> 00:00:02,000\nfine\n\n"
    for bad in ("00:00:xx,000 --> 00:00:04,000\nbroken\n\n", "00:00:09,000 --> 00:00:08,000\nbackwards\n\n",
                "00:00:03,000 --> 00:00:04,000\n<i></i>\n\n", "00:99:00,000 --> 00:99:01,000\nminutes\n\n"):
        assert parse_subtitles(bad + good) == parse_subtitles(good + bad) == [(1.0, 2.0, "fine")]
        with pytest.raises(InputError, match="No subtitle could be read"):
            parse_subtitles(bad)
    for text in ("", "WEBVTT\n\n", "plain words"):
        with pytest.raises(InputError):
            parse_subtitles(text)


def test_words_stay_inside_their_cue():
    words = subtitle_words(SRT)
    assert [w.text for w in words] == ["Hello", "there,", "Tom", "&", "Ann", "I", "<3", "you"]
    assert words[0].start == 1.0 and words[4].end == 2.5 and words[5].start == 63.04 and words[-1].end == 64.0
    assert all(w.start < w.end for w in words)


@pytest.mark.parametrize("text", ["I went there --> and back", "at 10:30 we met", "", "WEB site", "00:00:01,000"])
def test_plain_text_is_not_taken_for_subtitles(text):
    assert not looks_like_subtitles(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_text_files_in_the_encodings_people_have(tmp_path, encoding):
    (tmp_path / "a.srt").write_bytes("也没什么关系了 good".encode(encoding))
    assert read_text_file(str(tmp_path / "a.srt")) == "也没什么关系了 good"


def test_western_text_files(tmp_path):
    (tmp_path / "a.srt").write_bytes("un café, voilà “ça”".encode("cp1252"))
    assert read_text_file(str(tmp_path / "a.srt")) == "un café, voilà “ça”"


def test_files_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "big.srt").write_bytes(b"a" * (MAX_FILE_BYTES + 1))
    (tmp_path / "film.srt").write_bytes(b"\0\0\0\x20ftypisom")
    for name, reason in (("none.srt", "does not exist"), ("big.srt", "larger than 1 MB"), ("film.srt", "not a text file")):
        with pytest.raises(InputError, match=reason):
            read_text_file(str(tmp_path / name))
