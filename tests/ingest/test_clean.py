"""Whatever a metadata file holds, one line of visible characters comes out."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkrec.ingest.clean import plain_id, plain_text
from thinkrec.ingest.selection import natural_order


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<p>Tom &amp; Jerry</p><br/>again", "Tom & Jerry again"),
        ("&lt;b&gt;bold&lt;/b&gt; &amp;amp; more", "bold & more"),
        ("a\x00b\u202ec\ud800d\n\t e\u00a0f", "a b c d e f"),
        ("1 < 2 and 3 > 2, I <3 it", "1 < 2 and 3 > 2, I <3 it"),
        ("<!-- hidden <b> --><script src='x'>shown</script>", "shown"),
        ("Amelie\u0301 caf<b>e\u0301", "Amelié caf é"),
        ("", ""),
    ],
)
def test_markup_entities_and_invisible_characters_go(text, plain):
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("123.0", "123"),
        (" 7.00 ", "7"),
        ("-1.0", "-1"),
        ("1.5", "1.5"),
        ("v1.0", "v1.0"),
        ("007", "007"),
        ("e\u0301", "é"),
    ],
)
def test_an_id_is_the_same_however_a_file_writes_it(text, plain):
    assert plain_id(text) == plain


@given(st.text())
def test_the_result_is_one_tidy_line_that_a_file_can_hold(text):
    plain = plain_text(text)
    assert plain == " ".join(plain.split())
    plain.encode("utf-8")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_ascii_takes_a_short_way_to_the_same_text(text):
    assert f"{plain_text(text)} é".strip() == plain_text(f"{text} é")


@given(st.lists(st.text("01290aZ-é中", max_size=4), unique=True))
def test_raw_ids_are_numbered_by_value_then_by_text(ids):
    def key(raw_id):
        whole = raw_id.isascii() and raw_id.isdigit()
        digits = raw_id.lstrip("0") if whole else raw_id
        return not whole, len(digits) if whole else 0, digits, raw_id

    order = natural_order(pa.array(ids, pa.string())).to_pylist()
    assert [ids[at] for at in order] == sorted(ids, key=key)
