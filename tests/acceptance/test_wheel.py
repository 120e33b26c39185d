"""What goes home with a user: the wheel."""

import subprocess
import zipfile
from pathlib import Path

from config.env import CHECKOUT


def test_the_wheel_holds_the_app_poolhouse_alone(tmp_path: Path) -> None:
    uv = CHECKOUT / ".venv/bin/uv"
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, CHECKOUT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"poolhouse"}
    assert "poolhouse/management/commands/db_pool_status.py" in names
    assert "poolhouse/py.typed" in names
