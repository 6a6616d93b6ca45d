"""The command line, through `main`: runs, their folders, and every way to say no."""

import json
import signal

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

import jaxgen
import jaxgen.train
from jaxgen.cli import examples, inputs, main, options
from jaxgen.cli.progress import Reporter
from jaxgen.data import CLASS_NAMES, fashion_mnist, fashion_mnist_available
from jaxgen.sampler import program
from jaxgen.sampler.checkpoint.folder import Interrupted
from jaxgen.sampler.results import Progress

TINY = ["--chains", "8", "--num-mcmc-steps", "1", "--warmup", "2", "--steps", "2", "--thin", "1"]


def programs():
    """How many programs of the engine have been compiled."""
    return program.advance_in_place._cache_size()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every sampling command once, with the smallest settings, in one process."""
    root = tmp_path_factory.mktemp("runs")
    commands = {
        "demo": ["demo", "--quick"],
        "one": ["sample", "--class", "Ankle-Boot", *TINY],
        "inpaint": ["inpaint", "example:12", "--mask", "box:8,8,12,12", "--noise", "0.3", *TINY],
        "superres": ["superres", "example:3", "--noise", "0.3", *TINY],
    }
    counts = {}
    for name, command in commands.items():
        before = programs()
        assert main([*command, "--out", str(root / name), "--quiet"]) == 0
        counts[name] = programs() - before
    return root, counts


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("name", ["demo", "one", "inpaint", "superres"])
def test_a_run_leaves_pictures_draws_and_a_summary(made, name):
    folder = made[0] / name
    data = summary(folder)
    assert sorted(data["files"]) == sorted(p.name for p in folder.iterdir())
    for file in folder.glob("*.png"):
        with Image.open(file) as picture:
            assert picture.size > (100, 28)
    assert data["format"] == "jaxgen-run/1"
    assert data["command_line"][:2] == ["jaxgen", data["command"]]
    assert jaxgen.load_run(folder).summary["date"] == data["date"]
    assert data["arguments"]["seed"] == 0
    assert data["gradients"] == sum(run["gradients"] for run in data["runs"]) > 0
    assert all(len(model["sha256"]) == 64 for model in data["models"])
    arrays = load_file(folder / "draws.safetensors")
    generators = {name: jax.vmap(jaxgen.load(f"fashion-mnist/{name}")) for name in ("gan", "dcgan")}
    for run in data["runs"]:
        # The demo completes its images with the smaller network.
        small = data["command"] == "demo" and run["name"].startswith("example_")
        generator = generators["dcgan" if small else "gan"]
        assert run["exactness"] == "exact"
        assert np.isfinite([run["log_z"], run["log_z_standard_error"]]).all()
        assert 1 <= run["ess"] <= run["num_chains"] == 8
        position = arrays[f"{run['name']}/position"]
        image = arrays[f"{run['name']}/image"]
        assert position.shape == (8, run["draws_per_chain"], 64)
        np.testing.assert_allclose(generator(position[:, -1]), image[:, -1], atol=1e-4)
        assert arrays[f"{run['name']}/history/beta"][-1] == 1
        assert arrays[f"{run['name']}/log_density"].shape == image.shape[:2]


def test_only_another_kind_of_condition_compiles(made):
    # The demo has two kinds, classes and pixels; both are data from then on. Its images are
    # completed by a smaller network than that of `inpaint`.
    assert made[1] == {"demo": 2, "one": 0, "inpaint": 1, "superres": 1}


def test_the_figures_of_an_inpainting_follow_from_its_draws(made):
    arrays = load_file(made[0] / "inpaint" / "draws.safetensors")
    run = summary(made[0] / "inpaint")["runs"][0]
    truth = examples.shipped().images[12] / 255.0
    mask = np.ones((28, 28))
    mask[8:20, 8:20] = 0
    np.testing.assert_array_equal(arrays["image/mask"], mask)
    images = arrays["image/image"].reshape(-1, 28, 28, 1).astype(np.float64)
    np.testing.assert_allclose(arrays["image/mean"], images.mean(0), atol=1e-6)
    np.testing.assert_allclose(arrays["image/deviation"], images.std(0), atol=1e-6)
    hidden = mask == 0
    wanted = np.mean((images.mean(0) - truth)[hidden] ** 2)
    np.testing.assert_allclose(run["hidden_mse"], wanted, rtol=1e-5)
    each = np.mean((images - truth)[:, hidden] ** 2)
    np.testing.assert_allclose(run["hidden_mse_of_a_draw"], each, rtol=1e-5)
    assert each > wanted


def test_log_densities_are_those_of_the_posterior(made):
    arrays = load_file(made[0] / "one" / "draws.safetensors")
    classifier = jaxgen.load("fashion-mnist/classifier")
    target = jaxgen.Posterior(
        jaxgen.Gaussian.standard(64),
        jaxgen.load("fashion-mnist/gan"),
        jaxgen.ClassLogSoftmax(classifier, 9),
    )
    wanted = jax.vmap(target)(arrays["class_9/position"][:, -1])
    np.testing.assert_allclose(arrays["class_9/log_density"][:, -1], wanted, rtol=1e-4, atol=1e-2)


def test_superres_reduces_a_whole_image(made):
    arrays = load_file(made[0] / "superres" / "draws.safetensors")
    truth = examples.shipped().images[3] / 255.0
    view = [[truth[r : r + 4, c : c + 4].mean() for c in range(0, 28, 4)] for r in range(0, 28, 4)]
    np.testing.assert_allclose(arrays["image/view"][..., 0], view, atol=1e-6)
    assert "mse" in summary(made[0] / "superres")["runs"][0]


def test_a_run_is_not_overwritten_unless_told(made, capsys):
    folder = made[0] / "one"
    before = (folder / "summary.json").stat().st_mtime_ns
    command = ["sample", "--class", "9", *TINY, "--out", str(folder), "--quiet", "--json"]
    refuse(capsys, command, "--out: expected", "--force")
    assert (folder / "summary.json").stat().st_mtime_ns == before
    assert main([*command, "--seed", "5", "--force"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["arguments"]["seed"] == 5 == summary(folder)["arguments"]["seed"]
    assert printed["runs"][0]["label"] == "ankle boot"


def test_tables_go_to_stdout_and_progress_to_stderr(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in ("", "-2"):  # without --out the next free name is taken
        assert main(["sample", "--class", "1", *TINY]) == 0
        out, err = capsys.readouterr()
        assert "trouser" in out
        assert "log Z" in out
        assert f"runs/sample-trouser{number}: samples.png" in out
        assert "[1/1] trouser" in err
        assert "acceptance" in err
        assert "\x1b" not in out + err  # no terminal codes in files and pipes


# What is refused


def refuse(capsys, command, *texts):
    """A command ends with 2 and one line on stderr that holds all the texts."""
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for text in texts:
        assert text in err


def test_a_step_that_diverges_is_refused_and_nothing_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["sample", "--class", "1", "--chains", "2", "--kernel", "mh", "--step-size", "1e9"]
    command += ["--checkpoint-every", "1e6"]  # a checkpoint would stay, for --resume
    refuse(capsys, [*command, "--quiet"], "step_size: expected", "proposals are accepted", "1e+09")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(jaxgen, "sample", interrupted)
    assert main(["sample", "--class", "1"]) == 130
    assert capsys.readouterr().err.endswith("interrupted: no results were written\n")
    assert list(tmp_path.iterdir()) == []


SMALL = ["demo", "--quick", "--quiet", "--out", "run"]


def stopped(tmp_path, monkeypatch, number, after):
    """The exit code of a run that a signal reaches after so many chunks."""
    seen = []

    def update(self, progress):
        seen.append(progress.phase)
        if len(seen) == after:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(Reporter, "update", update)
        return main(SMALL)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_is_resumed(made, tmp_path, capsys, monkeypatch, number, code, word):
    assert stopped(tmp_path, monkeypatch, number, after=3) == code
    assert f"{word}: the same command with --out run --resume" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["run.partial"]
    waiting = sorted(p.name for p in (tmp_path / "run.partial").iterdir())
    assert waiting[0] == "class_0"

    monkeypatch.chdir(tmp_path)
    refuse(capsys, SMALL, "run was interrupted and waits in run.partial", "--resume", "--force")
    other = [*SMALL, "--resume", "--seed", "2"]
    refuse(capsys, other, "resume: expected the settings of the run", "key")
    assert main([*SMALL, "--resume"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    straight = load_file(made[0] / "demo" / "draws.safetensors")
    resumed = load_file(tmp_path / "run" / "draws.safetensors")
    for name, values in straight.items():  # a pool's row has no acceptance rate: NaN
        np.testing.assert_array_equal(values, resumed[name], err_msg=name)
    capsys.readouterr()
    refuse(capsys, [*SMALL, "--resume"], "run, which is complete")


def test_an_interrupted_run_can_be_given_up(tmp_path, capsys, monkeypatch):
    assert stopped(tmp_path, monkeypatch, signal.SIGTERM, after=1) == 143
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "--class", "2", *TINY, "--quiet", "--out", "run", "--force"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    capsys.readouterr()
    refuse(capsys, ["sample", "--class", "2", "--resume"], "--resume: expected the --out folder")


@pytest.mark.parametrize(
    ("stop", "code", "word"),
    [
        (jaxgen.Preempted, 143, "terminated"),
        (Interrupted, 130, "interrupted"),
        (lambda folder: KeyboardInterrupt(), 130, "interrupted"),  # a second Ctrl-C
    ],
)
def test_a_stopped_training_says_how_to_go_on(tmp_path, capsys, monkeypatch, stop, code, word):
    def stopped(*args, **kwargs):
        raise stop(tmp_path)

    monkeypatch.setattr(jaxgen.train, "run", stopped)
    assert main(["train", "toy2d/gan", "--out", str(tmp_path)]) == code
    told = f"{word}: the same command resumes from its checkpoint\n"
    assert capsys.readouterr() == ("", told)


def test_a_mistake_of_ours_is_not_silenced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(jaxgen, "sample", broken)
    with pytest.raises(ZeroDivisionError):
        main(["sample", "--class", "1"])


# Parts


@pytest.mark.parametrize(
    "command", ["", "demo", "sample", "inpaint", "superres", "train", "models", "fetch"]
)
def test_help_has_an_example_that_parses(capsys, command):
    assert main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    example = out.split("Example: jaxgen ")[1].split("\n\n")[0].split()
    parser = __import__("jaxgen.cli", fromlist=["_parse"])._parse
    assert parser(example).run is not None


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxgen {jaxgen.__version__}\n"


def test_models_lists_every_name(capsys):
    assert main(["models", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["fashion-mnist/dcgan"]["output_shape"] == [28, 28, 1]
    assert entries["fashion-mnist/cnn"]["kind"] == "classifier"
    assert main(["models"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in entries)


@pytest.mark.skipif(not fashion_mnist_available(), reason="needs Fashion-MNIST")
def test_the_shipped_examples_are_the_first_of_each_class(tmp_path):
    shipped, test = examples.shipped(), fashion_mnist("test")
    assert shipped.images.dtype == np.uint8
    np.testing.assert_array_equal(shipped.labels, np.repeat(np.arange(10), 5))
    np.testing.assert_array_equal(shipped.images, test.images[shipped.indices])
    for label in range(10):
        first = [i for i in range(200) if test.labels[i] == label][:5]
        assert shipped.indices[shipped.labels == label].tolist() == first
    examples.write(tmp_path / "again.safetensors")
    with safe_open(tmp_path / "again.safetensors", "np") as file:
        assert "MIT" in file.metadata()["licence"]
        for name, values in shipped._asdict().items():
            np.testing.assert_array_equal(file.get_tensor(name), values)


@pytest.mark.parametrize(
    ("text", "index"),
    [("7", 7), ("SNEAKER", 7), ("ankle_boot", 9), ("t-shirt/top", 0), ("t-shirt", 0), ("tr", 1)],
)
def test_classes_by_name_and_index(text, index):
    assert options.class_index(text, CLASS_NAMES) == index


@pytest.mark.parametrize("text", ["s", "", "-1", "٣٣"])
def test_ambiguous_and_foreign_classes_are_refused(text):
    with pytest.raises(jaxgen.InputError, match="--class"):
        options.class_index(text, CLASS_NAMES)


def test_kernels_and_schedules_by_name():
    assert options.kernel("hmc:7").num_steps == 7
    assert options.kernel("nuts").name == "NUTS"
    assert options.kernel("langevin:0.01").epsilon1 == 0.01
    np.testing.assert_allclose(options.betas("linear:4"), [0, 0.25, 0.5, 0.75, 1])
    assert options.betas("adaptive:0.8").cess == 0.8
    assert len(options.betas("cogen-images")) == 500


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P"])
def test_pictures_of_every_mode_give_the_same_image(tmp_path, mode):
    grey = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    picture = Image.fromarray(grey)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode != "L":
        picture = picture.convert(mode)
    picture.save(tmp_path / "x.png")
    got = inputs.read_image(str(tmp_path / "x.png"), [(28, 28)], 1)
    np.testing.assert_allclose(got.image[..., 0], grey / 255.0, atol=1e-6)
    assert got.mask is None


def test_transparent_pixels_are_hidden(tmp_path):
    pixels = np.full((28, 28, 2), 255, np.uint8)
    pixels[:4, :, 1] = 0
    pixels[4, :, 1] = 200
    Image.fromarray(pixels).save(tmp_path / "x.png")
    got = inputs.read_image(str(tmp_path / "x.png"), [(28, 28)], 1)
    np.testing.assert_array_equal(got.mask, np.repeat([0, 1], [5, 23])[:, None].repeat(28, 1))


@pytest.mark.parametrize("suffix", ["png", "npy"])
def test_masks_from_files(tmp_path, suffix):
    mask = np.random.default_rng(2).random((28, 28)) > 0.5
    path = tmp_path / f"mask.{suffix}"
    if suffix == "npy":
        np.save(path, mask)
    else:
        Image.fromarray(mask).save(path)
    np.testing.assert_array_equal(inputs.read_mask(str(path), (28, 28)), mask)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("lower-half", (14, 28, 0, 28)),
        ("right-half", (0, 28, 14, 28)),
        ("box:1,2,3,4", (1, 4, 2, 6)),
    ],
)
def test_named_masks(name, hidden):
    top, bottom, left, right = hidden
    mask = inputs.read_mask(name, (28, 28))
    inside = np.zeros((28, 28), bool)
    inside[top:bottom, left:right] = True
    np.testing.assert_array_equal(mask == 0, inside)


def test_the_live_line_tells_time_left(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("jaxgen.cli.progress.time.monotonic", lambda: clock[0])
    reporter = Reporter(2, num_mcmc_steps=3, steps=30)
    reporter.start("sneaker")
    assert "compiling" in reporter._words()

    def at(seconds, phase, done, total, beta):
        clock[0] = seconds
        reporter.update(Progress(phase, done, total, beta, 0.1, 0.8, 20.0, 300, 2))
        return reporter._words()

    line = at(10.0, "anneal", 10, None, 1e-2)
    for text in ("[1/2] sneaker", "beta 0.01", "acceptance 0.80", "ESS 20.0", "2 divergent"):
        assert text in line
    # log beta from -4.6 to -2.3 in 10 temperatures: 10 more to come and 30 steps after them,
    # half of it done in 20 s; the second posterior counts like the first.
    assert "0:20 elapsed, about 1:00 left" in at(20.0, "anneal", 20, None, 1e-1)
    reporter.start("bag")
    assert "about" in at(30.0, "draw", 20, 20, 1.0)
