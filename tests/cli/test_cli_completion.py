"""`jaxgen completion`: in real shells, where they are installed."""

import json
import shutil
import subprocess

import pytest

from jaxgen.cli import commands, main


def script(shell, capsys):
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def run(shell, text):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["jaxgen", "sa"], ["sample"]),
        (["jaxgen", "sample", "--resa"], ["--resample"]),
        (["jaxgen", "sample", "--resample", "s"], ["systematic", "stratified"]),
        (["jaxgen", "sample", "--kernel", "h"], ["hmc"]),
        (
            ["jaxgen", "sample", "--model", "fashion-mnist/dcgan-"],
            ["fashion-mnist/dcgan-discriminator"],
        ),
        (["jaxgen", "completion", "f"], ["fish"]),
        (["jaxgen", "inpaint", "--data-dir", "/etc/host"], ["/etc/hostname", "/etc/hosts"]),
    ],
)
def test_bash_completes(capsys, words, wanted):
    array = " ".join(f"'{word}'" for word in words)
    text = f"{script('bash', capsys)}\nCOMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; _jaxgen\n"
    found = run("bash", f'{text}printf "%s\\n" "${{COMPREPLY[@]}}"')
    assert set(wanted) <= set(found)
    assert all(word.startswith(words[-1]) for word in found)


def test_fish_completes(capsys):
    text = script("fish", capsys)
    assert "systematic" in run("fish", f"{text}\ncomplete -C 'jaxgen sample --resample s'")
    assert "sample" in run("fish", f"{text}\ncomplete -C 'jaxgen sam'")


def test_zsh_reads_the_script(capsys):
    text = script("zsh", capsys)
    run("zsh", f"compdef() {{ :; }}\n{text}\nwhich _jaxgen > /dev/null")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_known(capsys, shell):
    text = script(shell, capsys)
    for name, parser in commands().items():
        assert name in text
        for action in parser._actions:
            for option in action.option_strings:
                assert (option[2:] if shell == "fish" else option) in text


def test_json(capsys):
    assert main(["completion", "fish", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shell"] == "fish"
