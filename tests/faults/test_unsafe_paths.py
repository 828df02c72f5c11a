"""Nothing is read outside a data set's folder, and no config file runs code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vif.cli import main
from vif.config_file import read_config
from vif.data import datasets
from vif.data.datasets.attributes import find_attributes
from vif.errors import ConfigError, DataError
from vif.experiments.sweep import read_sweep

from tests import fake_trees

ROOT = Path(__file__).parents[2]
TREES = {
    "CARGO": (fake_trees.make_cargo, datasets.read_cargo, "train/Cam1"),
    "AGReIDv1": (fake_trees.make_agreidv1, datasets.read_agreidv1, "query_all_c0"),
    "AGReIDv2": (fake_trees.make_agreidv2, datasets.read_agreidv2, "train_all/P0000T04041A0"),
}
EACH = pytest.mark.parametrize("name", TREES)


@EACH
@pytest.mark.parametrize("what", ["file", "folder", "top folder", "link to nothing"])
def test_a_link_out_of_the_data_set_is_refused_by_name(tmp_path, name, what):
    make, read, folder = TREES[name]
    home = make(tmp_path / "root")
    inside = home / folder
    if what == "top folder":
        inside = home / folder.split("/")[0]
    if what.endswith("folder"):
        shutil.move(inside, tmp_path / "outside")
        inside.symlink_to(tmp_path / "outside")
    else:
        inside = min(inside.glob("*.jpg"))
        if what == "file":
            shutil.move(inside, tmp_path / "outside.jpg")
        else:
            inside.unlink()
        inside.symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(DataError, match="leaves .* through a symbolic link") as error:
        read(str(tmp_path / "root"))
    assert str(inside) in str(error.value)


@EACH
def test_links_within_the_data_set_and_a_linked_data_set_are_fine(tmp_path, name):
    make, read, folder = TREES[name]
    home = make(tmp_path / "disk")
    shutil.move(home / folder, home / "elsewhere")
    (home / folder).symlink_to(home / "elsewhere")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / home.name).symlink_to(home)
    assert read(str(tmp_path / "root"))["train"]


def test_a_list_or_attribute_file_that_is_a_link_out_is_refused(tmp_path):
    home = fake_trees.make_agreidv2(tmp_path / "root")
    for name in ("exp1_aerial_to_cctv.txt", "qut_attribute_v8.mat"):
        shutil.move(home / name, tmp_path / name)
        (home / name).symlink_to(tmp_path / name)
    with pytest.raises(DataError, match="exp1_aerial_to_cctv.txt' leaves"):
        datasets.read_agreidv2(str(tmp_path / "root"))
    with pytest.raises(DataError, match="qut_attribute_v8.mat' leaves"):
        find_attributes("AGReIDv2", str(tmp_path / "root"))
    named = str(tmp_path / "qut_attribute_v8.mat")
    assert find_attributes("AGReIDv2", str(tmp_path / "root"), named) == named


ATTACKS = {
    "os.system": "SEED: !!python/object/apply:os.system ['touch {mark}']\n",
    "eval": 'SEED: !!python/object/apply:eval [\'open("{mark}", "w")\']\n',
    "subprocess": "SEED: !!python/object/new:subprocess.Popen [['touch', '{mark}']]\n",
    "module": "SEED: !!python/module:antigravity\n",
}
ATTACK = pytest.mark.parametrize("attack", ATTACKS)


def attack_file(tmp_path, attack, in_base=False):
    mark, file = tmp_path / "executed", tmp_path / "attack.yml"
    file.write_text(ATTACKS[attack].format(mark=mark))
    if in_base:
        (tmp_path / "leaf.yml").write_text("_BASE_: attack.yml\nSEED: 1\n")
        file = tmp_path / "leaf.yml"
    return file, mark


@ATTACK
@pytest.mark.parametrize("in_base", [False, True])
def test_a_config_that_would_run_code_is_refused(tmp_path, attack, in_base):
    file, mark = attack_file(tmp_path, attack, in_base)
    with pytest.raises(ConfigError, match=r"attack\.yml.* cannot be read as YAML of plain values"):
        read_config(str(file))
    assert not mark.exists()


@ATTACK
def test_a_sweep_that_would_run_code_is_refused(tmp_path, attack):
    file, mark = attack_file(tmp_path, attack)
    with pytest.raises(ConfigError, match="cannot be read as a sweep"):
        read_sweep(str(file), "SynthAG")
    assert not mark.exists()


def test_code_on_the_command_line_stays_text(tmp_path):
    mark = tmp_path / "executed"
    with pytest.raises(ConfigError, match="KEY VALUE pairs: .*SEED"):
        read_config(
            str(ROOT / "configs/SynthAG/vif.yml"), ["SEED", f"__import__('os').system('touch {mark}')"]
        )
    assert not mark.exists()


def test_train_net_and_the_commands_refuse_it_in_one_line(tmp_path, capsys):
    file, mark = attack_file(tmp_path, "os.system")
    done = subprocess.run(
        [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert [line for line in done.stderr.splitlines() if "error: " in line][-1].startswith(f"error: {file}")
    assert "Traceback" not in done.stderr
    weights = ["--weights", "none.pth", "--out", str(tmp_path / "out.npz")]
    assert main(["extract", "--config-file", str(file), *weights]) == 1
    assert main(["sweep", str(file), "--data", "SynthAG", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("error: ") == 2
    assert not mark.exists()


WRONG = {
    "no file": (None, "there is no config file"),
    "empty": ("", "is no config: it must map keys to values"),
    "list": ("- SEED\n", "is no config: it must map keys to values"),
    "loop": ("_BASE_: wrong.yml\n", "inherits from itself"),
    "missing base": ("_BASE_: gone.yml\n", r"there is no config file .*gone\.yml.*wrong\.yml"),
    "base that is no text": ("_BASE_: [1]\n", "_BASE_ must be the path of a file"),
    "base elsewhere": ("_BASE_: https://example.org/x.yml\n", "_BASE_ must be the path of a file"),
    "torn": ("SEED: [1, 2\n", "cannot be read as YAML"),
    "unknown key": ("SOLVER:\n  SEEED: 1\n", r"SOLVER\.SEEED"),
    "wrong type": ("SOLVER:\n  BASE_LR: fast\n", r"SOLVER\.BASE_LR"),
    "section that is a value": ("SOLVER: 3\n", "SOLVER"),
    "value that is a section": ("SEED:\n  A: 1\n", "SEED"),
    "nothing": ("SEED:\n", "SEED has no value"),
    "entries": ("INPUT:\n  SIZE_TRAIN: [a, b]\n", r"INPUT\.SIZE_TRAIN must hold int"),
    "number as key": ("INPUT:\n  1: 2\n", "wrong.yml: "),
    "date": ("SEED: 2001-02-30\n", "cannot be read as YAML"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_config_is_one_line_with_its_file(tmp_path, case):
    text, message = WRONG[case]
    file = tmp_path / "wrong.yml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_config(str(file))
    assert "wrong.yml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.yml").write_bytes(b"SEED: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"x\.yml cannot be read as YAML of plain values, in UTF-8"):
        read_config(str(tmp_path / "x.yml"))


def test_a_loop_of_bases_names_the_way(tmp_path):
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yml").write_text(f"_BASE_: {base}.yml\n")
    with pytest.raises(ConfigError, match=r"a\.yml <- .*b\.yml <- .*c\.yml"):
        read_config(str(tmp_path / "a.yml"))


def test_pairs_without_a_value_or_with_an_unknown_key_are_one_line():
    config = str(ROOT / "configs/SynthAG/vif.yml")
    with pytest.raises(ConfigError, match="odd length"):
        read_config(config, ["SEED"])
    with pytest.raises(ConfigError, match=r"INPUT\.SIZE"):
        read_config(config, ["INPUT.SIZE", "3"])
