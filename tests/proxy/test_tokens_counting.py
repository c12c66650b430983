import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmeter_proxy.tokens.counting import _SAFE_CUT, MAX_PIECE, Tally, _count_piece, count, pieces
from cellmeter_proxy.tokens.ranks import EncodingName, encoding

MIXED = st.lists(
    st.sampled_from(
        [" ", "  ", "\n", "\t", "a", "The", "'s", "'", "1", "12345", "_", ".", "/", "é", "e\u0301", "ǅ", "²"]
    )
    | st.sampled_from(["漢", "ｶ", "한", "👩‍👧", "\u3000", "\x1c", "\ud800", "<|endoftext|>", "ا", "ª"])
    | st.text(max_size=3)
).map("".join)


@settings(deadline=None)  # the machine may be busy
@given(text=MIXED, name=st.sampled_from(["o200k_base", "cl100k_base"]))
def test_a_text_counted_in_two_at_any_safe_place_is_the_text_counted_whole(text: str, name: EncodingName) -> None:
    chosen = encoding(name)
    whole = count(chosen, text)

    for cut in _SAFE_CUT.finditer(text):
        at = cut.start()
        assert count(chosen, text[:at]) + count(chosen, text[at:]) == whole


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_a_long_text_counted_in_pieces_is_the_text_counted_whole(name: EncodingName) -> None:
    text = "The proxy's log (v2) holds 12,345 rows;\n\tfor row in rows: print(row['id'])  # naïve 漢字\n" * 5_000

    assert len(list(pieces(text))) > 3
    assert count(encoding(name), text) == len(encoding(name).encode_ordinary(text))


@pytest.mark.parametrize("unit", ["a", " ", "\n", "=", "漢", "a b", "don't ", "👩‍👧", "\u3000"])
def test_no_piece_is_longer_than_the_bound_and_none_of_the_text_is_lost(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))

    parts = list(pieces(text))

    assert "".join(parts) == text
    assert max(map(len, parts)) <= MAX_PIECE
    assert len(parts) <= 1 + len(text) // (MAX_PIECE // 2)


def test_a_run_of_a_million_blanks_is_counted() -> None:
    assert count(encoding("o200k_base"), " " * 1_000_000) == 7_813


def test_a_piece_that_makes_tiktoken_panic_is_counted_in_halves(capfd: pytest.CaptureFixture[str]) -> None:
    assert _count_piece(encoding("o200k_base"), " " * 1_100_000) == pytest.approx(1_100_000 / 128, abs=4)
    assert "panicked" in capfd.readouterr().err


def test_what_looks_like_a_special_token_is_text() -> None:
    assert count(encoding("o200k_base"), "<|endoftext|>") == 7


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("hello world", 2), ("\ud800", 1)])
def test_small_and_damaged_texts_are_counted(text: str, tokens: int) -> None:
    assert count(encoding("o200k_base"), text) == tokens


def test_a_tally_counts_no_more_characters_than_its_limit() -> None:
    tally = Tally(encoding("o200k_base"), limit=12)

    assert tally.count("hello world ") == count(encoding("o200k_base"), "hello world ")
    assert not tally.extrapolated
    assert tally.count("a" * 1_200) == 300
    assert tally.extrapolated


def test_a_tally_with_no_room_at_all_still_answers() -> None:
    assert Tally(encoding("o200k_base"), limit=0).count("hello") == 0
