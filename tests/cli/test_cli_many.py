"""Many classes and folders of images from one command: a folder for each, resumed item by item."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import jaxgen
from jaxgen import InputError
from jaxgen.cli import examples, main, many, runs
from jaxgen.report import output_folder, read

TINY = ["--chains", "8", "--num-mcmc-steps", "1", "--warmup", "2", "--steps", "4", "--thin", "1"]
CLASSES = ["sample", "--classes", "sneaker,0,bag", *TINY]


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "all"
    assert main([*CLASSES, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two pictures, and what is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, index in (("boot.png", 45), ("shirt.png", 1)):
        pixels = examples.shipped().images[index][..., 0]
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    return folder


def draws(folder):
    return load_file(folder / "draws.safetensors")


def test_every_class_has_a_run_of_its_own(classes):
    assert sorted(p.name for p in classes.iterdir()) == [
        *("T-shirt-top", "bag", "samples.png", "sneaker", "summary.json"),
    ]
    data = json.loads((classes / "summary.json").read_text())
    assert data["format"] == "jaxgen-runs/1"
    assert [item["label"] for item in data["items"]] == ["sneaker", "T-shirt/top", "bag"]
    assert data["command_line"][:3] == ["jaxgen", "sample", "--classes"]
    for item in data["items"]:
        run = jaxgen.load_run(classes / item["name"])
        assert run.draws["image"].shape == (8, 4, 28, 28, 1)
        assert run.summary["runs"][0]["log_z"] == item["log_z"]
        assert 0 <= item["judge_agreement"] <= 1
    with pytest.raises(InputError, match=r"a folder of runs.*all.sneaker"):
        jaxgen.load_run(classes)


def test_one_report_has_all_of_them(classes, capsys):
    assert main(["report", str(classes), "--quiet"]) == 0
    text = (classes.parent / "all.html").read_text()
    assert text.count("Film strip of a chain") == 3
    assert [entry.name for entry in read(classes).entries] == ["sneaker", "T-shirt-top", "bag"]
    (classes.parent / "all.html").unlink()


@pytest.mark.parametrize("name", ["../all", "", "..", 3, "absent", "bag/"])
def test_a_folder_of_runs_is_read_with_suspicion(classes, tmp_path, name):
    output_folder.write_json(
        tmp_path / "summary.json",
        {"format": "jaxgen-runs/1", "items": [{"name": name}], "files": []},
    )
    with pytest.raises(InputError, match=r"items\[0\].name: expected"):
        read(tmp_path)


@pytest.mark.slow
def test_what_is_done_is_not_done_again(classes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [*CLASSES, "--out", "run"]
    saved = []

    def save(path, *args, **kwargs):
        saved.append(path.name)
        if len(saved) == 2:
            raise KeyboardInterrupt
        return whole(path, *args, **kwargs)

    whole = runs.save
    with monkeypatch.context() as patch:
        patch.setattr(runs, "save", save)
        assert main(command) == 130
    assert "--out run --resume resumes" in capsys.readouterr().err
    assert (tmp_path / "run.partial" / "sneaker" / "summary.json").is_file()
    assert not (tmp_path / "run").exists()
    assert main([*command, "--resume", "--num-mcmc-steps", "2"]) == 2
    assert "--resume: expected the command that was interrupted; got another num_mcmc_steps" in (
        capsys.readouterr().err
    )
    # What a former version wrote down has the former name of the setting.
    items = tmp_path / "run.partial" / "items.json"
    text = items.read_text()
    assert text.count('"num_mcmc_steps"') == 1
    items.write_text(text.replace('"num_mcmc_steps"', '"moves"'))
    assert main([*command, "--resume"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 3 are done already" in err
    assert "[1/3]" not in err
    assert "bag" in out
    assert not (tmp_path / "run.partial").exists()
    for name in ("sneaker", "bag"):
        np.testing.assert_array_equal(
            draws(tmp_path / "run" / name)["image/image"], draws(classes / name)["image/image"]
        )
    # A finished folder is replaced by --force alone, and only where nothing else is in it.
    output_folder.check_free(tmp_path / "run", force=True)
    (tmp_path / "run" / "bag" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"run with bag/mine\.txt"):
        output_folder.check_free(tmp_path / "run", force=True)


@pytest.mark.slow  # the program of one run compiles as well
def test_a_class_has_the_draws_it_has_alone(classes, tmp_path):
    alone = tmp_path / "alone"
    assert main(["sample", "--class", "bag", *TINY, "--out", str(alone), "--quiet"]) == 0
    np.testing.assert_allclose(
        draws(alone)["class_8/image"], draws(classes / "bag")["image/image"], atol=1e-4
    )


def test_an_item_that_fails_is_named_and_the_others_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    each = jaxgen.sample_each

    def failing(*args, **kwargs):
        def told(number, outcome):
            tell(number, InputError("item 0: betas: too few") if number == 0 else outcome)

        tell = kwargs.pop("each")
        return each(*args, each=told, **kwargs)

    monkeypatch.setattr(jaxgen, "sample_each", failing)
    assert main([*CLASSES, "--out", "run"]) == 1
    out, err = capsys.readouterr()
    assert err.rstrip().endswith("error: T-shirt/top: betas: too few")
    assert "sneaker" in out
    assert "T-shirt" not in out
    data = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert data["failed"] == [{"label": "T-shirt/top", "error": "betas: too few"}]
    assert len(data["items"]) == 2
    # Where all of them fail, there is nothing to keep.
    assert main(["sample", "--classes", "0", *TINY, "--out", "none", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err == "error: T-shirt/top: betas: too few (none of 1 could be sampled)\n"
    assert not (tmp_path / "none").exists()


def test_a_folder_of_images_is_completed(images, tmp_path, capsys):
    out = tmp_path / "done"
    command = ["inpaint", str(images), "--mask", "lower-half", "--noise", "0.3", *TINY]
    assert main([*command, "--out", str(out), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "boot.png" in printed
    assert "hidden MSE" in printed
    assert sorted(p.name for p in out.iterdir()) == [
        *("boot", "inpainting.png", "shirt", "summary.json"),
    ]
    entry = read(out / "boot").entries[0]
    truth = examples.shipped().images[45] / 255.0
    np.testing.assert_allclose(entry.extra["truth"], truth, atol=1e-6)
    assert entry.extra["mask"][:14].all()
    assert not entry.extra["mask"][14:].any()
    np.testing.assert_allclose(entry.extra["mean"], entry.image.mean((0, 1)), atol=1e-5)
    assert {"low", "high"} <= entry.extra.keys()


@pytest.mark.slow  # another kind of condition compiles
def test_a_folder_of_images_is_sharpened(images, tmp_path):
    out = tmp_path / "sharp"
    command = ["superres", str(images), "--noise", "0.2", "--class", "coat", *TINY]
    assert main([*command, "--out", str(out), "--quiet"]) == 0
    assert read(out / "shirt").entries[0].extra["view"].shape == (7, 7, 1)
    assert (out / "superresolution.png").is_file()


def test_files_that_cannot_be_used_are_named(images, tmp_path, capsys):
    for name in ("boot.png", "shirt.png"):
        (tmp_path / name).write_bytes((images / name).read_bytes())
    Image.new("L", (20, 28)).save(tmp_path / "narrow.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    command = ["inpaint", str(tmp_path), "--mask", "lower-half", "--out", str(tmp_path / "o")]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: narrow.png: expected 28 x 28 pixels; got 20 x 28")
    assert err.rstrip().endswith("1 more cannot be used: torn.png")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["superres", str(empty)]) == 2
    assert "IMAGE: expected a folder with PNG, JPEG or npy files" in capsys.readouterr().err
    assert main(["inpaint", str(images), "--mask", "half"]) == 2
    assert capsys.readouterr().err.startswith("error: --mask: expected")
    assert main(["sample", "--classes", "bag,sneker"]) == 2
    assert "--classes: expected one of" in capsys.readouterr().err
    assert main(["sample", "--classes", "8,bag"]) == 2
    assert "--classes: expected each class once" in capsys.readouterr().err


def test_folders_have_names_of_their_own():
    labels = ["a.png", "a.jpg", "b.png", "lock", "T-shirt/top", "summary.json", "b c.npy"]
    assert many.folder_names(labels) == [
        *("a.png", "a.jpg", "b", "lock-2", "T-shirt-top", "summary", "b-c"),
    ]
