"""Rules are a bijection, and a wrong recipe is told every mistake at once."""

import re

import numpy as np
import pytest

from weights_convert.rules import Rule, apply_rules

RULES = [
    Rule(r"(\w+)\.weight", r"\1.kernel", "dense"),
    Rule(r"(\w+)\.bias", r"\1.bias"),
]


def test_every_key_goes_to_its_place():
    source = {
        "a.weight": np.arange(6.0).reshape(2, 3),
        "a.bias": np.ones(2),
        "a.num_batches_tracked": np.int64(4),
    }
    result = apply_rules(
        RULES, source, {"a.kernel": (3, 2), "a.bias": (2,)}, ignore=[r".*num_batches_tracked"]
    )
    assert list(result) == ["a.kernel", "a.bias"]
    np.testing.assert_array_equal(result["a.kernel"], source["a.weight"].T)


def test_all_mistakes_in_one_line():
    source = {
        "a.weight": np.zeros((2, 3)),  # wrong shape for the target
        "b.weight": np.zeros((2, 3)),  # no such target
        "c.weight": np.zeros(3),  # cannot be transformed
        "d.bias": np.float32([np.nan, 0]),  # not finite
        "extra": np.zeros(2),  # left over
    }
    target = {"a.kernel": (2, 3), "c.kernel": (3, 1), "d.bias": (2,), "e.kernel": (1, 1)}
    with pytest.raises(ValueError, match=r"file\.pth: 6 mistakes") as caught:
        apply_rules(RULES, source, target, where="file.pth")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "a.kernel: the network has shape (2, 3)",
        "b.weight: goes to b.kernel, which the network does not have",
        "c.weight: cannot be transformed",
        "d.bias: holds NaN or infinite",
        "extra: left over (shape (2,))",
        "e.kernel: not filled",
    ):
        assert part in message


def test_hundreds_of_mistakes_are_all_told_and_a_hostile_file_cannot_flood():
    with pytest.raises(ValueError, match="500 mistakes") as caught:
        apply_rules(RULES, {f"x{i}": np.zeros(1) for i in range(500)}, {})
    assert all(f" x{i}: left over" in str(caught.value) for i in range(500))
    with pytest.raises(ValueError, match="and 1000 more") as caught:
        apply_rules(RULES, {f"{i}" + "x" * 1000: np.zeros(1) for i in range(5000)}, {})
    assert len(str(caught.value)) < 1_000_000


def test_a_key_that_two_rules_take_and_a_target_filled_twice():
    rules = [*RULES, Rule(r"a\.(.*)", r"b.\1"), Rule("x", "b.bias")]
    source = {"a.bias": np.zeros(2), "b.bias": np.zeros(2), "x": np.zeros(2)}
    with pytest.raises(ValueError, match="2 rules take it") as caught:
        apply_rules(rules, source, {"b.bias": (2,)})
    assert "b.bias: filled twice, by b.bias and by x" in str(caught.value)


def test_literal_rules_are_rules_like_others():
    rules = [Rule(re.escape("a.b[0]"), "x"), Rule(r"c\.d", "y")]
    source = {"a.b[0]": np.zeros(1), "c.d": np.ones(1)}
    found = apply_rules(rules, source, {"x": (1,), "y": (1,)})
    assert found["x"] == 0
    assert found["y"] == 1
    with pytest.raises(ValueError, match=r"a\.b\[0\]: 2 rules take it"):
        apply_rules([*rules, Rule("a.*", "y")], source, {"x": (1,), "y": (1,)})
    with pytest.raises(ValueError, match=r"c\.d: 2 rules take it"):
        apply_rules([*rules, Rule(r"c\.d", "x")], source, {"x": (1,), "y": (1,)})
    with pytest.raises(ValueError, match="axd: left over"):
        apply_rules([Rule(r"a\.d", "x")], {"axd": np.zeros(1)}, {})


def test_bad_patterns_and_transforms_are_named():
    with pytest.raises(ValueError, match="regular expression"):
        apply_rules([Rule("(", "a")], {}, {})
    with pytest.raises(ValueError, match="unknown transform 'turn'"):
        apply_rules([Rule("a", "a", "turn")], {"a": np.zeros(2)}, {"a": (2,)})
