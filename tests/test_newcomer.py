"""The newcomer's path (benchmarks/newcomer.py) only counts where the report it saved brings everything with it."""

import pytest

from benchmarks.newcomer import self_contained

REPORT = '<!doctype html><html><style>p { background: url(data:image/png;base64,AA) }</style><img src="data:image/jpeg;base64,AA" alt=""><a href="#end">end</a></html>'


def test_a_report_with_its_pictures_inside_is_self_contained():
    assert self_contained(REPORT)


@pytest.mark.parametrize("added", ['<img src="https://example.org/x.png">', "<img src='/file=x.png'>", '<link rel="stylesheet" href="x.css">', "<script>1</script>",
                                   "<style>@import 'x.css'</style>", "<style>p { background: url(x.png) }</style>", '<iframe srcdoc=""></iframe>'])
def test_one_that_asks_for_anything_is_not(added):
    assert not self_contained(REPORT.replace("</html>", added + "</html>"))


def test_nor_is_one_without_pictures_or_another_file():
    assert not self_contained("<!doctype html><p>no pictures</p>") and not self_contained("id,label\n")
