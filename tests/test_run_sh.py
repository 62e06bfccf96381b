"""run.sh: verbs, exit codes, untouched arguments, and an environment that is made once and redone on change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERBS = ["setup", "demo", "download", "prepare", "train", "evaluate", "predict", "submit", "kernel", "report"]
VERBS += ["validate", "bench", "test", "help"]

# Stands in for Python: answers as it does, makes a "virtual environment" that is itself, and writes down its calls.
FAKE = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in
    *"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; test ! -e "$CALLS.novenv" ;;
    *"version_info[:2]"*) cat "$CALLS.version" 2>/dev/null ;;
    *"-m pip --version"*) test ! -e "$CALLS.nopip" ;;
    *"-m pip install"*) test ! -e "$CALLS.broken" ;;
    *train.py*) for word; do echo "[$word]"; done ;;
esac
"""


def run(*arguments: str, root: Path = ROOT, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "PYTHONPATH")}
    return subprocess.run(
        [str(root / "run.sh"), *arguments],
        cwd=cwd or root,
        env={**environment, **extra},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """run.sh with what it needs, in a folder with a space, and a fake python3 before all others."""
    root = tmp_path / "my clone"
    (root / "src").mkdir(parents=True)
    (root / "tests" / "bench").mkdir(parents=True)
    shutil.copy(ROOT / "run.sh", root)
    (root / "src" / "train.py").write_text("")
    (root / "requirements.txt").write_text("numpy\n")
    (root / "requirements-dev.txt").write_text("-r requirements.txt\npytest\n")
    fakes = tmp_path / "bin"
    fakes.mkdir()
    (fakes / "python3").write_text(FAKE)
    (fakes / "python3").chmod(0o755)
    return root


def fake(clone: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    path = f"{clone.parent / 'bin'}:{os.environ['PATH']}"
    return run(*arguments, root=clone, cwd=clone.parent, PATH=path, CALLS=str(clone.parent / "calls"), **extra)


def calls(clone: Path, word: str) -> int:
    path = clone.parent / "calls"
    return sum(word in line for line in path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_help_names_every_verb(arguments: list[str], tmp_path: Path) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 0
    assert [verb for verb in VERBS if f"\n  {verb} " not in result.stdout] == []
    assert result.stderr == ""


def test_unknown_verb() -> None:
    result = run("trian")
    assert result.returncode == 2
    assert result.stderr.startswith("run.sh: trian: unknown verb")
    assert result.stderr.count("\n") == 1


def test_everything_after_the_verb_is_passed_on_as_it_is(clone: Path) -> None:
    words = ["-m", "fold=0,1", "images=/a b/c", "runs=[a, b]", "message='it''s'", "*", "$HOME", ""]
    result = fake(clone, "train", *words)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1:] == [f"[{word}]" for word in words]


def test_environment_is_made_once_and_redone_when_the_requirements_change(clone: Path) -> None:
    for _ in range(2):
        assert fake(clone, "train").returncode == 0
    assert (calls(clone, "-m venv"), calls(clone, "-m pip install")) == (1, 1)
    assert (clone / ".venv" / "bin" / "python").exists()
    (clone / "requirements.txt").write_text("numpy\npandas\n")
    assert fake(clone, "train").returncode == 0
    assert (calls(clone, "-m venv"), calls(clone, "-m pip install")) == (1, 2)


def test_a_broken_installation_is_not_taken_for_whole(clone: Path) -> None:
    broken = clone.parent / "calls.broken"
    broken.write_text("")
    result = fake(clone, "train")
    assert result.returncode == 1
    assert "pip failed" in result.stderr
    assert calls(clone, "train.py") == 0
    broken.unlink()
    assert fake(clone, "train").returncode == 0
    assert calls(clone, "-m pip install") == 2


def test_without_python3_venv_nothing_is_left_that_a_second_try_would_trip_over(clone: Path) -> None:
    missing = clone.parent / "calls.novenv"
    missing.write_text("")
    result = fake(clone, "train")
    assert result.returncode == 1
    assert "python3-venv" in result.stderr
    assert not (clone / ".venv").exists()
    missing.unlink()
    assert fake(clone, "train").returncode == 0
    assert calls(clone, "-m pip install") == 1


def test_an_environment_without_pip_is_made_again(clone: Path) -> None:
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    shutil.copy(clone.parent / "bin" / "python3", python)
    (clone.parent / "calls.nopip").write_text("")
    assert fake(clone, "train").returncode == 0
    assert calls(clone, "-m venv") == 1


@pytest.mark.parametrize("files", [["notes.txt"], ["pyvenv.cfg", "notes.txt"], [".stamp-of-mine", "notes.txt"]])
@pytest.mark.parametrize("novenv", [False, True])
def test_a_folder_that_is_somebody_elses_is_left_as_it_is(clone: Path, files: list[str], novenv: bool) -> None:
    folder = clone.parent / "my data"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("mine")
    if novenv:
        (clone.parent / "calls.novenv").write_text("")
    result = fake(clone, "train", HISTOFOLD_VENV=str(folder))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"HISTOFOLD_VENV={clone.parent}/my\\ data/histofold-venv" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert calls(clone, "-m venv") == 0


def test_a_file_in_the_place_of_the_environment_is_left_as_it_is(clone: Path) -> None:
    (clone.parent / "data").write_text("mine")
    assert fake(clone, "train", HISTOFOLD_VENV="data").returncode == 1
    assert (clone.parent / "data").read_text() == "mine"


def test_an_empty_folder_becomes_an_environment_and_stays_where_that_fails(clone: Path) -> None:
    folder = clone.parent / "data"
    folder.mkdir()
    missing = clone.parent / "calls.novenv"
    missing.write_text("")
    assert fake(clone, "train", HISTOFOLD_VENV="data").returncode == 1
    assert list(folder.iterdir()) == []
    missing.unlink()
    assert fake(clone, "train", HISTOFOLD_VENV="data").returncode == 0
    assert (folder / "bin" / "python").exists()


@pytest.mark.parametrize("place", [".venv", "elsewhere"])
@pytest.mark.parametrize("left", [[".stamp-begun"], [".stamp-begun", "pyvenv.cfg"], [".stamp-x", "pyvenv.cfg"]])
def test_what_a_broken_off_call_left_is_mended(clone: Path, place: str, left: list[str]) -> None:
    folder = clone / place
    (folder / "lib").mkdir(parents=True)
    for name in left:
        (folder / name).write_text("")
    assert fake(clone, "train", **({} if place == ".venv" else {"HISTOFOLD_VENV": str(folder)})).returncode == 0
    assert not (folder / "lib").exists()
    assert sorted(path.name for path in folder.iterdir()) == [".stamp-requirements.txt", "bin"]


def test_a_call_that_is_broken_off_leaves_its_mark(clone: Path) -> None:
    (clone.parent / "calls.broken").write_text("")
    assert fake(clone, "train", HISTOFOLD_VENV="envs/own").returncode == 1
    folder = clone.parent / "envs" / "own"
    assert (folder / ".stamp-begun").exists()
    (folder / "bin" / "python").unlink()
    (clone.parent / "calls.broken").unlink()
    assert fake(clone, "train", HISTOFOLD_VENV="envs/own").returncode == 0


def test_setup_takes_files_of_requirements_only(clone: Path) -> None:
    for word in ("help", "-h", "--help"):
        result = fake(clone, "setup", word)
        assert (result.returncode, result.stderr) == (0, "")
        assert "\n  setup " in result.stdout
    result = fake(clone, "setup", "requirement.txt")
    assert result.returncode == 2
    assert "there are: requirements-dev.txt requirements.txt" in result.stderr
    assert calls(clone, "-m") == 0
    assert fake(clone, "setup", "requirements-dev.txt").returncode == 0


def test_another_python_under_the_environment_is_noticed(clone: Path) -> None:
    version = clone.parent / "calls.version"
    version.write_text("(3, 11)")
    assert fake(clone, "train").returncode == 0
    version.write_text("(3, 12)")
    assert fake(clone, "train").returncode == 0
    assert calls(clone, "-m pip install") == 2
    assert fake(clone, "train").returncode == 0
    assert calls(clone, "-m pip install") == 2


@pytest.mark.parametrize(("free", "warned"), [("3", True), ("40", False)])
def test_little_space_is_said_before_the_download(clone: Path, free: str, warned: bool) -> None:
    df = clone.parent / "bin" / "df"
    df.write_text(f"#!/bin/sh\necho Filesystem\necho disk 0 0 {free}000000 90% /\n")
    df.chmod(0o755)
    result = fake(clone, "setup")
    assert result.returncode == 0, "it only warns: a cache or links may need less"
    assert ("GB are free there" in result.stderr) is warned


def test_test_and_bench_install_the_development_packages_too(clone: Path) -> None:
    (clone / "tests" / "bench" / "bench_thing.py").write_text("")
    assert fake(clone, "bench", "thing", "--quick").returncode == 0
    assert calls(clone, "requirements-dev.txt") == 1
    assert calls(clone, "bench_thing.py --quick") == 1
    # They hold requirements.txt, so a verb has nothing to add.
    assert fake(clone, "train").returncode == 0
    assert calls(clone, "-m pip install") == 1
    assert fake(clone, "test", "-k", "nothing").returncode == 0
    assert calls(clone, "-m ruff check") == calls(clone, "-m mypy") == calls(clone, "-m pytest -k nothing") == 1


def test_python_is_used_as_it_is(clone: Path) -> None:
    python = clone.parent / "bin" / "python3"
    assert fake(clone, "train", PYTHON=str(python)).returncode == 0
    assert not (clone / ".venv").exists()
    assert calls(clone, "-m pip install") == 0
    result = fake(clone, "train", PYTHON="/no/such/python")
    assert result.returncode == 1
    assert result.stderr == "run.sh: PYTHON=/no/such/python: no such interpreter\n"


def test_through_links_its_own_folder_is_found(clone: Path) -> None:
    links = clone.parent / "links"
    links.mkdir()
    (links / "second").symlink_to("../my clone/run.sh")
    (links / "histofold").symlink_to("second")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    environment |= {"PATH": f"{clone.parent / 'bin'}:{os.environ['PATH']}", "CALLS": str(clone.parent / "calls")}
    result = subprocess.run(
        ["bash", "links/histofold", "train"], cwd=clone.parent, env=environment, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (clone / ".venv").is_dir()
    assert [path.name for path in sorted(links.iterdir())] == ["histofold", "second"]


def test_cdpath_and_another_shell_change_nothing(clone: Path) -> None:
    (clone / "tests" / "bench" / "bench_rle.py").write_text("")
    environment = {**os.environ, "CDPATH": f"{clone.parent}:/"}
    for shell in ("bash", "sh"):
        result = subprocess.run(
            [shell, "my clone/run.sh", "bench"], cwd=clone.parent, env=environment, capture_output=True, check=False
        )
        assert result.stderr == b"run.sh: bench: choose one of: rle \n", shell
        assert result.returncode == 2


def test_relative_interpreters_outlive_the_change_of_folder(clone: Path) -> None:
    assert fake(clone, "test", PYTHON="bin/python3").returncode == 0
    assert calls(clone, "-m pytest") == 1
    assert fake(clone, "test", HISTOFOLD_VENV="envs/own").returncode == 0
    assert (clone.parent / "envs" / "own" / "bin" / "python").exists()
    assert calls(clone, "-m pytest") == 2


def test_too_old_a_python_is_told(clone: Path) -> None:
    tools = clone.parent / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "cat", "cksum", "env"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tools / "python3").chmod(0o755)
    result = run("train", root=clone, PATH=str(tools))
    assert result.returncode == 1
    assert "Python 3.11 or newer was not found" in result.stderr


def test_bench_lists_its_names(clone: Path) -> None:
    (clone / "tests" / "bench" / "bench_rle.py").write_text("")
    for arguments in (["bench"], ["bench", "none"]):
        result = fake(clone, *arguments)
        assert result.returncode == 2
        assert "rle" in result.stderr


def test_a_wrong_setting_from_any_folder(tmp_path: Path) -> None:
    result = run("train", "fol=1", cwd=tmp_path, PYTHON=sys.executable)
    assert result.returncode == 2
    assert result.stderr == "histofold: fol: unknown setting; did you mean 'fold'?\n"
    assert list(tmp_path.iterdir()) == []


def test_verbs_without_a_script(tmp_path: Path) -> None:
    result = run("validate", "competition=dsb2018", cwd=tmp_path, PYTHON=sys.executable)
    assert result.returncode == 2
    assert "file=PATH" in result.stderr


def test_continuous_integration_runs_the_tests(clone: Path) -> None:
    (clone / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci")
    path = f"{clone.parent / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CALLS": str(clone.parent / "calls")}
    environment.pop("PYTHON", None)
    result = subprocess.run([str(clone / ".ci" / "run")], cwd="/", env=environment, capture_output=True, check=False)
    assert result.returncode == 0
    assert calls(clone, "-m pytest") == 1
