"""Former module names: they give today's modules, whichever way they are imported."""

import importlib

import pytest

import jaxgen
from jaxgen.core.aliases import FORMER
from jaxgen.core.errors import InputError


@pytest.mark.parametrize("old", sorted(FORMER))
def test_a_former_name_is_the_same_module(old):
    module = importlib.import_module(f"jaxgen.{FORMER[old]}")
    assert importlib.import_module(f"jaxgen.{old}") is module
    assert module.__name__ == module.__spec__.name == f"jaxgen.{FORMER[old]}"


def test_what_lies_in_a_moved_folder_is_not_loaded_twice():
    import jaxgen.conditions.operators as former

    import jaxgen.target.conditions.operators as todays

    assert former is todays
    assert jaxgen.conditions.BoxAverage is jaxgen.target.conditions.BoxAverage
    assert jaxgen.errors.InputError is InputError


def test_functions_of_a_modules_name_stay_functions():
    from jaxgen.sample import images

    assert images is jaxgen.images
    assert all(callable(getattr(jaxgen, name)) for name in ("sample", "ais", "bdmc", "loglik"))


def test_a_wrong_name_is_still_refused():
    with pytest.raises(ModuleNotFoundError, match=r"conditions\.nothing"):
        importlib.import_module("jaxgen.conditions.nothing")
    with pytest.raises(ModuleNotFoundError, match=r"jaxgen\.engine"):
        importlib.import_module("jaxgen.engine")
