import hashlib

from rlassay.data.images import Images


def test_equal_contents_share_a_file_and_leftovers_are_removed(tmp_path):
    earlier = Images(tmp_path).add(b"old")
    images = Images(tmp_path)
    first, again, other = images.add(b"new"), images.add(b"new"), images.add(b"newer", "jpg")
    assert first == again
    # sha256(b"new") = 11507a0e2f5e69d5... (sha256sum)
    assert first.path == "images/11507a0e2f5e69d5.png"
    assert other.path.endswith(".jpg")
    assert (tmp_path / first.path).read_bytes() == b"new"
    images.prune()
    assert {f"images/{file.name}" for file in (tmp_path / "images").iterdir()} == {first.path, other.path}
    assert earlier.path not in (first.path, other.path)


def test_the_digest_follows_the_contents_and_how_often_does_not_matter(tmp_path):
    digests = []
    for number, contents in enumerate([(b"a", b"b"), (b"a", b"b", b"a"), (b"a", b"c")]):
        images = Images(tmp_path / str(number))
        for content in contents:
            images.add(content)
        digests.append(images.digest())
    assert digests[0] == digests[1] != digests[2]


def test_an_image_of_an_earlier_attempt_counts_only_if_it_is_whole(tmp_path):
    first = Images(tmp_path)
    path, torn = first.add(b"whole").path, first.add(b"torn").path
    (tmp_path / torn).write_bytes(b"tor")
    whole_sha, torn_sha = (hashlib.sha256(content).hexdigest() for content in (b"whole", b"torn"))
    later = Images(tmp_path)
    assert later.recall(path, whole_sha)
    assert not later.recall(torn, torn_sha)
    assert not later.recall("images/gone.png", torn_sha)
    later.add(b"torn")
    assert (tmp_path / torn).read_bytes() == b"torn"
    assert later.digest() == first.digest()
