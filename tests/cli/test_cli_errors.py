"""Every way in which the command line says no: exit code 2, one line, and what to do next.

The last test looks at the source: each `raise` of the command line has to be reached by one
of the cases listed here.
"""

import ast
import importlib
import json
import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import cli
from jaxgen.cli import commands, main
from jaxgen.core.errors import InputError
from jaxgen.train import RECIPES

SOURCE = Path(cli.__file__).parent

# What a message ends in, or says: a wanted value, a name that is near, or a place to look.
NEXT = re.compile(r"expected .+; got .+|See `?jaxgen|Did you mean|run: jaxgen|Fetch the file again")


@pytest.fixture
def idle(tmp_path, monkeypatch):
    """A folder to work in, where sampling and training are errors of the test."""
    monkeypatch.chdir(tmp_path)

    def never(*args, **kwargs):
        raise AssertionError("went to work in spite of bad input")

    monkeypatch.setattr(jaxgen, "sample", never)
    monkeypatch.setattr(jaxgen, "sample_each", never)
    # By their modules: jaxgen.loglik itself is the function.
    monkeypatch.setattr(importlib.import_module("jaxgen.loglik"), "loglik", never)
    monkeypatch.setattr(importlib.import_module("jaxgen.train"), "run", never)
    return tmp_path


def refuse(capsys, command, *texts):
    """A command ends with 2 and one line on stderr that holds all the texts."""
    assert main(command) == 2, command
    out, err = capsys.readouterr()
    assert out == "", command
    assert err.startswith("error: "), command
    assert err.count("\n") == 1, command
    assert NEXT.search(err), err
    for text in texts:
        assert text in err, err


ARGUMENTS = [
    ("", ["COMMAND: expected one of demo,"]),
    ("smple", ["got 'smple'", "'sample'?"]),
    ("--vesion", ["unrecognized arguments: --vesion. Did you mean --version?"]),
    ("sample", ["--class", "required"]),
    ("sample --class 11", ["--class: expected a class from 0 to 10", "got 11"]),
    ("sample --class sneeker", ["--class: expected one of", "Did you mean 'sneaker'?"]),
    ("sample --class 1 --classes all", ["--classes: not allowed with argument --class"]),
    ("sample --classes 1,trouser", ["--classes: expected each class once; got 1,trouser"]),
    ("sample --class 3 --model fashion-mnist/dcgn", ["Did you mean 'fashion-mnist/dcgan'?"]),
    ("sample --class 3 --model fashion-mnist/cnn", ["--model: expected a generator;"]),
    ("sample --class 3 --model toy2d/gan", ["--model: expected a generator of images"]),
    ("sample --class 3 --model progan-celeba128", ["run: jaxgen fetch progan-celeba128"]),
    ("sample --class 3 --classifier toy2d/gan", ["--classifier: expected a classifier"]),
    ("sample --class 3 --model lost.safetensors", ["that exists; got lost.safetensors"]),
    ("sample --class 3 --chain 4", ["unrecognized arguments: --chain", "mean --chains?"]),
    ("sample --class 3 --kernel hcm", ["--kernel: expected one of", "Did you mean 'hmc'?"]),
    ("sample --class 3 --kernel hmc:0", ["--kernel: expected an integer", "got 0"]),
    ("sample --class 3 --kernel mala:3", ["--kernel: expected mala without a number"]),
    ("sample --class 3 --kernel langevin", ["--kernel: expected a positive step"]),
    ("sample --class 3 --betas sigmod:5", ["Did you mean 'sigmoid:T'?"]),
    ("sample --class 3 --betas linear", ["--betas: expected an integer", "linear:500"]),
    ("sample --class 3 --betas adaptive:2", ["--betas: expected a fraction"]),
    ("sample --class 3 --step-size -1", ["--step-size: expected a positive number; got -1"]),
    ("sample --class 3 --step-size nan", ["--step-size: expected a positive number"]),
    ("sample --class 3 --resample never", ["--resample: expected one of", "got 'never'"]),
    ("sample --class 3 --thin 30", ["--thin: expected at most --steps, 20; got 30"]),
    ("sample --class 3 --force", ["--force: expected an --out folder"]),
    ("sample --class 3 --resume", ["--resume: expected the --out folder"]),
    ("inpaint example:0", ["--mask: expected", "got none"]),
    ("inpaint example:50 --mask left-half", ["IMAGE: expected example:0 to example:49"]),
    ("inpaint lost.png --mask left-half", ["IMAGE: expected a file that exists", "lost.png"]),
    ("inpaint lost.npy --mask left-half", ["IMAGE: expected a file that exists", "lost.npy"]),
    ("inpaint example:0 --mask lowerhalf", ["--mask: expected a mask's name", "lower-half"]),
    ("inpaint example:0 --mask box:1,2", ["--mask: expected box:row,column,height,width"]),
    ("inpaint example:0 --mask box:20,20,9,9", ["--mask: expected a box inside 28 rows"]),
    ("inpaint example:0 --mask box:0,0,28,28", ["mask: expected at least one observed pixel"]),
    ("inpaint example:0 --mask left-half --noise 0", ["--noise: expected a positive number"]),
    ("inpaint example:0 --mask left-half --class hat", ["--class: expected one of", "'hat'"]),
    ("superres example:0 --factor 5", ["--factor: expected a divisor of 28 and 28; got 5"]),
    ("superres example:0 --method median", ["--method: expected one of average, stride"]),
    ("loglik fashion-mnist/vae", ["required: IMAGES"]),
    ("loglik fashion-mnist/cnn example:0", ["MODEL: expected a generator;"]),
    ("loglik fashion-mnist/vae example:0 --sigma 1", ["--sigma: expected a gaussian likelihood"]),
    ("loglik fashion-mnist/dcgan example:0", ["--sigma: expected a standard deviation"]),
    (
        "loglik fashion-mnist/dcgan example:0 --sigma 1 --encoder fashion-mnist/vae-encoder",
        ["--encoder: expected one of this decoder"],
    ),
    ("loglik fashion-mnist/vae example:x", ["IMAGES: expected a number or a range"]),
    ("loglik fashion-mnist/vae example:9-3", ["IMAGES: expected a range that increases"]),
    ("loglik fashion-mnist/vae lost-ubyte:3", ["IMAGES: expected a file that exists"]),
    ("loglik fashion-mnist/vae example:0 --bdmc 1", ["--bdmc: expected an integer from 2"]),
    ("train fashion-mnist/dcgn", ["NAME: expected one of", "'fashion-mnist/dcgan'?"]),
    ("train toy2d/gan --steps 0", ["--steps: expected an integer of at least 1; got 0"]),
    ("train toy2d/gan --snapshots 5,x --out new", ["--snapshots: expected whole numbers"]),
    ("train text/writer", ["--text: expected a file with a sentence on each line; got none"]),
    ("train toy2d/gan --text a.txt", ["--text: expected none for toy2d/gan; got a.txt"]),
    ("train toy2d/gan --vocabulary 9", ["--vocabulary: expected none for toy2d/gan; got 9"]),
    ("report lost", ["RUN: expected the folder of a run; got lost"]),
    ("fetch progan-celeba12", ["NAME: expected one of progan-celeba128,", "12"]),
    (
        "sample --classes 3,8 --until converged",
        ["--until: expected one posterior at a time; got 2 posteriors"],
    ),
    ("sample --class 3 --until bored", ["--until", "converged"]),
    (
        "fetch face-expression face-age-gender --out x.safetensors",
        ["--out: expected one network at a time; got 2 networks"],
    ),
    ("fetch progan-celeba128 --out x.npz", ["--out: expected a name that ends in"]),
    ("models --jsn", ["unrecognized arguments: --jsn. Did you mean --json?"]),
    ("doctor all", ["unrecognized arguments: all"]),
    ("completion csh", ["SHELL: expected one of bash, zsh, fish; got 'csh'"]),
    ("demo --seed -1", ["--seed: expected an integer from 0", "got -1"]),
    ("demo --config lost.toml", ["--config: expected a TOML file that exists; got lost.toml"]),
    ("demo --quick --save-config lost/x.toml", ["--save-config: expected a file that can be"]),
]

FILES = [
    ("inpaint cut.png --mask left-half", ["IMAGE: expected a whole picture; got cut.png"]),
    ("inpaint text.png --mask left-half", ["IMAGE: expected a PNG, JPEG or npy file"]),
    ("inpaint wide.png --mask left-half", ["28 x 28 pixels; got 30 x 28"]),
    ("inpaint bomb.png --mask left-half", ["IMAGE: expected a picture of a sane size"]),
    ("inpaint nan.npy --mask left-half", ["IMAGE: expected finite pixels; got 28 NaN"]),
    ("inpaint bytes.npy --mask left-half", ["IMAGE: expected pixels in [0, 1]", "255"]),
    ("inpaint object.npy --mask left-half", ["IMAGE: expected an npy file of numbers"]),
    ("inpaint words.npy --mask left-half", ["IMAGE: expected an npy file of numbers", "type"]),
    ("inpaint cut.npy --mask left-half", ["IMAGE: expected an npy file of numbers"]),
    ("inpaint large.npy --mask left-half", ["IMAGE: expected at most 64 MiB"]),
    ("inpaint small.npy --mask left-half", ["IMAGE: expected shape [28, 28, 1]; got [14, 14"]),
    ("inpaint good.png --mask small.npy", ["--mask: expected shape [28, 28]", "[14, 14]"]),
    ("inpaint good.png --mask half.npy", ["--mask: expected 0 (hidden) or 1 (observed)"]),
    ("inpaint good.png --mask wide.png", ["--mask: expected 28 x 28 pixels; got 30 x 28"]),
    ("inpaint empty --mask left-half", ["IMAGE: expected a folder with PNG, JPEG or npy files"]),
    ("inpaint album --mask left-half", ["wide.png: expected 28 x 28 pixels; got 30 x 28"]),
    ("superres clears", ["clear.png: expected an opaque image"]),
    ("sample --classes 1 --out begun --resume", ["--resume: expected a readable begun.partial"]),
    ("sample --classes 1 --out changed --resume", ["--resume: expected the command that was int"]),
    *[
        (f"inpaint {words} --model mobilestylegan-ffhq", texts)
        for words, texts in [
            ("good.png", ["IMAGE: expected a face in the frame of FFHQ", "Give --landmarks"]),
            ("wide.png --aligned", ["IMAGE: expected a square picture", "got 30 x 28 pixels"]),
            (
                "good.png --aligned --landmarks 1,2,3,4,5,6",
                ["--aligned: expected no --landmarks beside it"],
            ),
            ("good.png --landmarks 1,2,3", ["--landmarks: expected six numbers", "got 1,2,3"]),
            ("album --aligned", ["IMAGE: expected one picture for this generator; got album"]),
            ("good.png --aligned --class 1", ["--class: expected no class"]),
            ("good.png --aligned --chains 9", ["--chains: expected no setting", "--budget"]),
            ("good.png --aligned", ["--mask: expected something that is hidden"]),
            (
                "good.png --aligned --mask box:1,1,254,254",
                ["--mask: expected at least one cell of 16 x 16 pixels"],
            ),
        ]
    ],
    ("inpaint good.png --aligned", ["--aligned: expected a generator of faces", "--generator"]),
    ("superres small.npy", ["[28, 28, 1] or [7, 7, 1]; got [14, 14, 1]"]),
    ("superres clear.png", ["IMAGE: expected an opaque image; got clear.png"]),
    ("loglik fashion-mnist/vae clear.png", ["IMAGES: expected opaque pictures"]),
    ("loglik fashion-mnist/vae small-ubyte:0", ["IMAGES: expected shape [28, 28, 1]"]),
    ("loglik fashion-mnist/vae small-ubyte:2", ["IMAGES: expected small-ubyte:0 to 1"]),
    ("sample --class 1 --model cut.safetensors", ["cut.safetensors", "Fetch the file again"]),
    ("sample --class 1 --model foreign.safetensors", ["expected a safetensors file"]),
    ("sample --class 1 --out good.png", ["--out: expected a folder", "good.png"]),
    ("sample --class 1 --out good.png/run", ["--out: expected a folder that can be"]),
    ("sample --class 1 --out done", ["--out: expected a folder that does not exist", "--force"]),
    ("sample --class 1 --out done --resume", ["--resume: expected a run that was interrupted"]),
    ("sample --class 1 --out other --force", ["--out: expected a folder that holds a run"]),
    ("sample --class 1 --out waiting", ["--out: expected a new folder", "Give --resume"]),
    ("train toy2d/gan --out good.png", ["--out: expected a folder; got good.png, a file"]),
    ("train toy2d/gan --out weights", ["--out: expected no weights of that name", "--force"]),
    ("report waiting", ["RUN: expected the folder of a run", "finish it with --resume"]),
    ("report other", ["summary.json: expected a readable file"]),
    ("sample --config cut.toml", ["--config: expected TOML", "cut.toml"]),
    ("sample --config bytes.toml", ["--config: expected a TOML file; got bytes.toml"]),
    ("sample --config large.toml", ["--config: expected at most 1 MiB"]),
    ("inpaint --config sample.toml", ["sample.toml: command: expected 'inpaint'; got 'sample'"]),
    ("sample --config key.toml", ["key.toml: chians: expected a setting", "'chains'?"]),
    ("sample --config twice.toml", ["twice.toml: moves: expected each setting once; got num-mcmc"]),
    ("sample --config table.toml", ["table.toml: chains: expected a text or a number"]),
    ("sample --config flag.toml", ["flag.toml: force: expected true or false; got 'yes'"]),
    ("sample --config value.toml", ["value.toml: --chains: expected an integer", "got 0"]),
    ("sample --class 1 --save-config key.toml", ["--save-config: expected a file that is not"]),
]


def fill(root):
    """The files that the commands above name."""
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(root / "good.png")
    (root / "cut.png").write_bytes((root / "good.png").read_bytes()[:300])
    (root / "text.png").write_text("not a picture")
    Image.new("L", (30, 28)).save(root / "wide.png")
    Image.new("1", (14_000, 14_000)).save(root / "bomb.png")
    Image.new("LA", (28, 28), (90, 0)).save(root / "clear.png")
    np.save(root / "nan.npy", np.where(np.eye(28) > 0, np.nan, 0.5))
    np.save(root / "bytes.npy", np.full((28, 28), 200.0))
    np.save(root / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(root / "words.npy", np.full((28, 28), "word"))
    np.save(root / "small.npy", np.ones((14, 14)))
    np.save(root / "half.npy", np.full((28, 28), 0.5))
    (root / "cut.npy").write_bytes((root / "nan.npy").read_bytes()[:200])
    with (root / "large.npy").open("wb") as file:
        file.truncate((64 << 20) + 1)
    sizes = b"".join(n.to_bytes(4, "big") for n in (2, 14, 14))
    (root / "small-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + bytes(2 * 14 * 14))
    weights = files("jaxgen") / "shipped" / "fashion_mnist_dcgan.safetensors"
    (root / "cut.safetensors").write_bytes(weights.read_bytes()[:9000])
    (root / "foreign.safetensors").write_bytes(b"\x80\x04pickled, perhaps")
    for folder, names in {"empty": [], "album": ["good", "wide"], "clears": ["clear"]}.items():
        (root / folder).mkdir()
        for name in names:
            (root / folder / f"{name}.png").write_bytes((root / f"{name}.png").read_bytes())
    for folder, text in {"begun": "{", "changed": "{}"}.items():
        (root / f"{folder}.partial").mkdir()
        (root / f"{folder}.partial" / "items.json").write_text(text)
        (root / f"{folder}.partial" / "lock").touch()
    (root / "done").mkdir()
    (root / "done" / "summary.json").write_text(json.dumps({"format": "jaxgen-run/1", "files": []}))
    (root / "other").mkdir()
    (root / "other" / "letter.txt").write_text("dear")
    (root / "waiting.partial").mkdir()
    (root / "waiting.partial" / "run.json").touch()
    (root / "weights").mkdir()
    (root / "weights" / f"toy2d_gan_{RECIPES['toy2d/gan'].steps}.safetensors").write_text("weights")
    for name, text in {
        "cut": "chains = ",
        "sample": 'command = "sample"\nchains = 8\n',
        "key": 'class = "1"\nchians = 8\n',
        "table": 'class = "1"\nchains = {of = 8}\n',
        "twice": 'class = "1"\nnum-mcmc-steps = 1\nmoves = 2\n',
        "flag": 'class = "1"\nforce = "yes"\n',
        "value": 'class = "1"\nchains = 0\n',
    }.items():
        (root / f"{name}.toml").write_text(text)
    (root / "bytes.toml").write_bytes(b"\xff\xfe")
    (root / "large.toml").write_bytes(b"#" * ((1 << 20) + 1))


# Words that fit no type of any option.
WRONG = "-7x"


def options_of(parser):
    return [a for a in parser._actions if a.option_strings and a.dest != "help"]


@pytest.mark.parametrize("name", list(commands()))
def test_every_option_of_every_command_refuses_what_it_cannot_use(idle, capsys, name):
    for action in options_of(commands()[name]):
        option = action.option_strings[-1]
        takes = action.nargs != 0
        if takes and action.nargs != "?":
            refuse(capsys, [name, option], f"{option}: expected one argument", f"jaxgen {name}")
        if takes and (action.type or action.choices):
            refuse(capsys, [name, f"{option}={WRONG}"], f"{option}", WRONG)
        if not takes:
            refuse(capsys, [name, f"{option}=1"], f"{option}: ignored explicit argument '1'")
    refuse(
        capsys, [name, *_needed(name), "--zzz"], "unrecognized arguments: --zzz", f"`jaxgen {name}"
    )
    if _needed(name):
        refuse(capsys, [name], "required")
    assert list(idle.iterdir()) == []


def _needed(name):
    """Words without which the command is refused for another reason."""
    words = {
        "sample": ["--class", "1"],
        "inpaint": ["example:0"],
        "superres": ["example:0"],
        "loglik": ["fashion-mnist/vae", "example:0"],
        "report": ["run"],
        "train": ["toy2d/gan"],
        "fetch": ["face-expression"],
        "completion": ["bash"],
    }
    return words.get(name, [])


# Raised where a test cannot lead, each with the reason.
ELSEWHERE = {
    ("options.py", "error"): "passes on what argparse says",
    ("many.py", "finish"): "when nothing could be sampled: see test_cli_many",
}


def test_every_refusal_is_listed_and_ends_in_one_line(idle, capsys, monkeypatch):
    monkeypatch.setenv("JAXGEN_CACHE", str(idle / "empty"))
    reached = set()
    build = InputError.__init__

    def noted(self, *args):
        frame = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.parent == SOURCE:
                reached.add((path.name, frame.f_lineno))
            frame = frame.f_back
        build(self, *args)

    monkeypatch.setattr(InputError, "__init__", noted)
    fill(idle)
    before = sorted(idle.rglob("*"))
    failed = []
    for command, texts in [*ARGUMENTS, *FILES]:
        try:
            refuse(capsys, shlex.split(command), *texts)
            assert sorted(idle.rglob("*")) == before, "it left files"
        except AssertionError as error:  # all of them in one report
            failed.append(f"{command}: {error}")
    assert failed == []
    assert _unreached(reached) == []


def _unreached(reached):
    """Each `raise` of the command line's source that no case has led to."""
    missed = []
    for path in sorted(SOURCE.glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef) or (path.name, function.name) in ELSEWHERE:
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Raise) and _refuses(node):
                    lines = range(node.lineno, node.end_lineno + 1)
                    if not any((path.name, line) in reached for line in lines):
                        missed.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    return missed


def _refuses(node):
    call = node.exc
    return isinstance(call, ast.Call) and getattr(call.func, "id", "") in (
        "expected",
        "nearest",
        "InputError",
    )
