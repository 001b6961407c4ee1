"""The help texts, their examples, and the completion of shells."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from fastjac.__main__ import COMMANDS, main, parse


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_has_one_example_and_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.count("example:\n") == shown.count("exit codes:\n") == 1
    assert all(f"\n  {code} " in shown for code in (0, 1, 2, 130))
    assert max(map(len, shown.splitlines())) < 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_a_call_of_the_command(name):
    example = COMMANDS[name][-1]
    words = [word for word in shlex.split(example) if "=" not in word]
    assert words[:2] == ["fastjac", name]
    assert parse(words[1:]).module == COMMANDS[name][0]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_files(tmp_path):
    printed = subprocess.run(
        [sys.executable, "-m", "fastjac", "--print-completion", "bash"], capture_output=True, text=True
    )
    assert printed.returncode == 0, printed.stderr
    (function,) = re.findall(r"^complete .*-F (\w+) fastjac$", printed.stdout, re.MULTILINE)
    (tmp_path / "network.npz").touch()

    def completed(*words):
        ask = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; {function}"
        script = f"{printed.stdout}\n{ask}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        result = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        return result.stdout.split()

    assert completed("fastjac", "com") == ["compare"]
    assert completed("fastjac", "compare", "--gr") == ["--grid"]
    assert completed("fastjac", "check", "net") == ["network.npz"]


def test_completion_without_shtab_is_told(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", "bash"])
    assert end.value.code == 2
    assert "pip install 'fastjac[completion]'" in capsys.readouterr().err
