"""What a run is made of: a function is its name and code, wherever in the package it stands."""

from jaxgen.core.fingerprint import difference


def test_a_module_that_moved_is_no_difference():
    old = {"collect": "jaxgen.sample.images sha256 e27c2ac5d643"}
    assert difference(old, {"collect": "jaxgen.inference.sample.images sha256 e27c2ac5d643"}) == []
    lines = difference(old, {"collect": "jaxgen.inference.sample.images sha256 000000000000"})
    assert lines == [
        "collect was jaxgen.images sha256 e27c2ac5d643, is jaxgen.images sha256 000000000000"
    ]
    other = {"collect": "jaxgen.inference.sample.positions sha256 e27c2ac5d643"}
    assert len(difference(old, other)) == 1


def test_the_users_own_modules_count():
    old, new = {"f": "mine.a.f sha256 1"}, {"f": "mine.b.f sha256 1"}
    assert difference(old, new) == ["f was mine.a.f sha256 1, is mine.b.f sha256 1"]
