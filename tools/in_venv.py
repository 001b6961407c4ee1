"""Run a command in a virtual environment that has fastjac and what the command needs, made on first use.

    python3 tools/in_venv.py python -m fastjac
    python3 tools/in_venv.py pytest
    python3 tools/in_venv.py sphinx-build -W docs build/html

The environment is the active one if there is one, else ``.venv`` beside pyproject.toml. Nothing is
installed anywhere else, so this also works where the system's Python refuses ``pip install``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
# Command -> the extra that it needs; the demonstration needs none.
EXTRAS = {"sphinx-build": "docs", "asv": "dev"}
DEMONSTRATION = ["python", "-m", "fastjac"]


def make(environment: Path) -> None:
    """Make the environment, with a pip of its own where the system can give it one."""
    command = [sys.executable, "-m", "venv", str(environment)]
    if subprocess.run(command, capture_output=True).returncode:  # Debian without python3-venv
        subprocess.run([*command, "--clear", "--without-pip"], check=True)


def extra(command: list[str]) -> str:
    """Return the extra that ``command`` needs."""
    return "" if command == DEMONSTRATION else EXTRAS.get(command[0], "test")


def install(environment: Path, wanted: str) -> None:
    """Install fastjac from this tree, editable, unless it is there with the extra ``wanted``."""
    python = environment / SCRIPTS / "python"
    stamp = environment / "fastjac-installed"
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    source, *extras = stamp.read_text().splitlines() if stamp.exists() else [""]
    if source != f"{ROOT} {digest}":
        extras = []
    elif wanted in extras:
        return
    print(f"installing fastjac into {environment}", file=sys.stderr)
    pip = [str(python), "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
    what = f"{ROOT}[{wanted}]" if wanted else str(ROOT)
    subprocess.run([*pip, "install", "--quiet", "--editable", what], check=True)
    stamp.write_text("\n".join([f"{ROOT} {digest}", *sorted({"", wanted, *extras})]) + "\n")


def main(command: list[str]) -> int:
    """Run ``command`` and return its exit code."""
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    active = os.environ.get("VIRTUAL_ENV")
    environment = Path(active) if active else ROOT / ".venv"
    try:
        if not (environment / "pyvenv.cfg").exists():
            make(environment)
        install(environment, extra(command))
    except subprocess.CalledProcessError as error:
        print(f"in_venv: failed: {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    path = os.pathsep.join([str(environment / SCRIPTS), os.environ.get("PATH", os.defpath)])
    program = shutil.which(command[0], path=path)
    if program is None:
        print(f"in_venv: there is no command {command[0]}", file=sys.stderr)
        return 127
    variables = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(environment)}
    variables.pop("PYTHONHOME", None)
    try:
        return subprocess.run([program, *command[1:]], env=variables).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
