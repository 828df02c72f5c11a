"""The commit that results name."""

import shutil
import subprocess
from pathlib import Path

import pytest
from vif import versions

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")


def git(folder, *words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_repository_that_only_surrounds_the_package_is_not_its_source(tmp_path, monkeypatch):
    here = Path(shutil.copy(versions.__file__, tmp_path))
    monkeypatch.setattr(versions, "__file__", str(here))
    find = versions.commit.__wrapped__  # without what it remembers
    assert find() == ""
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "theirs")
    assert find() == ""
    git(tmp_path, "add", here.name)
    git(tmp_path, "commit", "-m", "ours")
    assert git(tmp_path, "rev-parse", "HEAD").startswith(find())
    assert find()
    here.write_text("")
    assert find().endswith("+")
