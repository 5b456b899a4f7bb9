#!/usr/bin/env python3
"""The stock Rust providers (open-feature-flagd: RPC and in process; open-feature-ofrep) against `seaworthy flagd start`.

    tests/flagd/rust.py --bin target/ci/seaworthy --target DIR

Builds tests/flagd/rust in DIR and runs it. The providers' build needs protoc; where there is none, the one of grpcio-tools is
put into a virtual environment in DIR.
"""

import argparse
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def protoc(target: Path) -> dict[str, str]:
    """What the build has to know to find protoc."""
    if shutil.which("protoc") or os.environ.get("PROTOC"):
        return {}
    home = target / "protoc"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "grpcio-tools==1.76.0"], check=True)
    script = home / "bin" / "protoc"
    script.write_text(f'#!/bin/sh\nexec "{python}" -m grpc_tools.protoc "$@"\n')
    script.chmod(0o755)
    where = "import grpc_tools, os; print(os.path.join(os.path.dirname(grpc_tools.__file__), '_proto'))"
    include = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    return {"PROTOC": str(script), "PROTOC_INCLUDE": include}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, type=Path)
    parser.add_argument("--target", required=True, type=Path)
    options = parser.parse_args()
    target = options.target.resolve()
    target.mkdir(parents=True, exist_ok=True)
    words = ["cargo", "run", "--quiet", "--locked", "--manifest-path", HERE / "rust" / "Cargo.toml", "--target-dir", target]
    environment = {**os.environ, **protoc(target)}
    return subprocess.run([*words, "--", options.bin.resolve()], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
