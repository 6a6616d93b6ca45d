"""The documentation: its code runs, its names exist, its commands parse, and the site builds.

The README's own block is run by test_readme.py.
"""

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

import jaxgen
from jaxgen.cli import _parse
from tests import browser

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "pages").rglob("*.md"))
SKIPPED = r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?"
# {.python} where a file is included: a formatter would take that line for code.
BLOCK = re.compile(SKIPPED + r"```(?:python|\{\.python\})\n(?P<code>.*?)```", re.DOTALL)
# More than one network or run to compile, or torch: they would double the time of the default run.
SLOW = (
    "getting-started.md",
    "how-to/diagnostics.md",
    "how-to/extend.md",
    "how-to/generator.md",
    "how-to/mri.md",
    "how-to/other-samplers.md",
    "how-to/sequences.md",
    "how-to/transformations.md",
    "papers/ppgn.md",
)


def text_of(page):
    """A page with the files that it includes."""
    return re.sub(
        r'^--8<-- "(.+)"$',
        lambda match: (DOCS / match[1]).read_text().rstrip(),
        page.read_text(),
        flags=re.MULTILINE,
    )


def name_of(page):
    return str(page.relative_to(DOCS / "pages"))


def blocks(page):
    return [(m["code"], m["reason"]) for m in BLOCK.finditer(text_of(page))]


WITH_CODE = [
    pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] * (name_of(page) in SLOW))
    for page in PAGES
    if any(reason is None for _, reason in blocks(page))
]


# What ArviZ and matplotlib say of their own future is not the page's to mend.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("page", WITH_CODE)
def test_code_runs_as_printed(page, tmp_path, monkeypatch):
    """All blocks of a page in their order, in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    if "import torch" in text_of(page):
        pytest.importorskip("torch", reason="the page converts a PyTorch network")
    if "to_arviz" in text_of(page):
        pytest.importorskip("arviz", reason="the page hands draws to ArviZ")
    for library in ("numpyro", "tensorflow_probability"):
        if f"from {library}" in text_of(page):
            pytest.importorskip(library, reason="the page samples with it")
    names = {"__name__": "page"}
    for number, (code, reason) in enumerate(blocks(page)):
        if reason is None:
            exec(compile(code, f"{name_of(page)}, block {number}", "exec"), names)


def test_what_is_not_run_says_why():
    reasons = [reason for page in PAGES for _, reason in blocks(page) if reason is not None]
    assert len(reasons) == 13
    assert all(len(reason) > 20 for reason in reasons)


@pytest.mark.parametrize("name", ["own_generator", "own_dcgan"])
def test_scripts_of_ones_own_generator_are_short(name):
    lines = (DOCS / "scripts" / f"{name}.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 20


def resolve(dotted):
    """The object of a dotted name, imported as far as it is made of modules."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_exist(page):
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for dotted in re.findall(r"`((?:jaxgen|weights_convert)(?:\.\w+)+)", prose):
        if not dotted.endswith((".html", ".fish")):
            resolve(dotted)
    for dotted in re.findall(r"^::: (\S+)", prose, re.MULTILINE):
        assert resolve(dotted).__doc__, dotted


def test_every_public_name_has_a_place_in_the_reference():
    listed = "\n".join(page.read_text() for page in (DOCS / "pages" / "reference").glob("*.md"))
    objects = [resolve(dotted) for dotted in re.findall(r"^::: (\S+)", listed, re.MULTILINE)]
    modules = [thing for thing in objects if isinstance(thing, ModuleType)]
    shown = [vars(module).get(name) for module in modules for name in module.__all__]
    missing = []
    for name in jaxgen.__all__:
        thing = getattr(jaxgen, name)
        if isinstance(thing, ModuleType):  # its contents are what is shown
            continue
        if not any(thing is other for other in [*objects, *shown]):
            missing.append(name)
    assert missing == []


def commands_of(page):
    for block in re.findall(r"```bash\n(.*?)```", text_of(page), re.DOTALL):
        for line in block.splitlines():
            yield from re.findall(r"(?:^|&& )(?:\.venv/bin/)?(jaxgen [^#>&]*|python .*)", line)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_understood(page, tmp_path, monkeypatch):
    for command in commands_of(page):
        words = shlex.split(command, comments=True)
        if words[0] == "python":
            if words[1] != "-m":
                assert (ROOT / words[1]).is_file(), command
            continue
        monkeypatch.chdir(tmp_path)  # where --save-config may write
        assert _parse(words[1:]).run


def test_error_messages_are_those_of_the_source():
    page = (DOCS / "pages" / "troubleshooting.md").read_text()
    files = [*(ROOT / "jaxgen").rglob("*.py"), *(ROOT / "weights_convert").rglob("*.py")]
    source = "".join(file.read_text() for file in files)
    source = re.sub(r'"\s*\n?\s*f?"', "", source)  # texts over several lines
    said = re.findall(r"^\*\*`(.+?)`\*\*", page, re.MULTILINE)
    assert len(said) > 15
    for message in said:
        if message == "Very slow compile?":  # XLA's
            continue
        words = re.sub(r"^[^:]+: expected ", "", message).split(";")[0].split()
        least = min(3, len(words))
        runs = [" ".join(words[i : i + least]) for i in range(len(words) - least + 1)]
        assert any(run.rstrip(",.") in source for run in runs), message


def search_from_disk(site):
    """Type a word into the search of a page that was opened as a file."""
    with browser.Browser() as page:
        page.open(site / "how-to" / "kernels.html")
        page.value(
            "(() => { const q = document.querySelector('.md-search__input'); q.focus(); "
            "q.value = 'annealing'; for (const t of ['focus', 'keyup', 'input', 'change']) "
            "q.dispatchEvent(new Event(t, { bubbles: true })); })()"
        )
        for _ in range(100):
            time.sleep(0.1)
            found = page.value("document.querySelectorAll('.md-search-result__link').length")
            if found:
                break
        assert found > 3
        assert page.value("document.querySelector('math') === null")
        assert not page.complaints()


def test_formulas_are_mathml_and_code_is_left_alone():
    pytest.importorskip("latex2mathml", reason="needs latex2mathml")
    path = DOCS / "scripts" / "formulas.py"
    spec = importlib.util.spec_from_file_location("formulas", path)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    text = "$x^2$ costs $5 or `$y$`\n\n```bash\necho $A $B\n```\n\n$$ \\frac{a}{b} $$\n"
    made = hook.on_page_markdown(text)
    assert made.count("<math") == 2
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in made
    assert 'display="block"' in made
    assert "costs $5 or `$y$`" in made
    assert "echo $A $B" in made


def test_the_site_builds_without_warnings_and_needs_no_network(tmp_path):
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'jaxgen[docs]'")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["-f", str(DOCS / "mkdocs.yml"), "-d", str(site)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    if browser.installed() is not None:
        search_from_disk(site)
    assert "<math" in (site / "how-to" / "mri.html").read_text()
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)  # and the one for addresses that do not exist
    for page in pages:
        html = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"([^\"]+)", html)
        loaded += re.findall(r"<link[^>]+rel=\"(?:stylesheet|preconnect|preload)\"[^>]*>", html)
        assert not [where for where in loaded if "//" in where], page.name
