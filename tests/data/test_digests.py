from hypothesis import given
from hypothesis import strategies as st

from rlassay.data.digests import SMALLEST, Digests, digest_of

DIGESTS = st.integers(1, 2**64 - 1) | st.integers(1, 40).map(lambda n: n * SMALLEST)  # the latter want one place


@given(st.lists(DIGESTS, max_size=60), DIGESTS)
def test_it_holds_what_a_set_holds(added, asked):
    digests, expected = Digests(), set()
    for digest in added:
        assert digests.add(digest) == (digest not in expected)
        expected.add(digest)
    assert len(digests) == len(expected)
    assert (asked in digests) == (asked in expected)


def test_it_grows_and_forgets_nothing():
    digests, many = Digests(), [digest_of(str(number)) for number in range(5 * SMALLEST)]
    assert all(digests.add(digest) for digest in many)
    assert all(digest in digests for digest in many)
    assert digest_of("absent") not in digests
    assert len(digests) == len(many)


def test_a_million_take_no_more_than_32_bytes_each():
    digests = Digests()
    for number in range(1, 20_001):
        digests.add(number)
    assert digests._places.buffer_info()[1] * 8 <= 32 * len(digests) + 8 * SMALLEST


def test_parts_are_told_apart():
    assert digest_of("a", "b") != digest_of("ab") != digest_of("a\0b!")
    # the first 8 bytes of sha256("abc"), the first test vector of FIPS 180
    assert digest_of("abc") == 0xBA7816BF8F01CFEA
