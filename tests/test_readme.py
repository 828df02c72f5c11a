"""Commands and code of the pages: files exist, options parse, code runs, make does what the README says."""

import re
import shlex
import subprocess

import pytest
from vif.cli import build_parser

from tests.pages import ROOT, commands
from tests.tiny import CONFIGS

PAGES = [ROOT / "README.md", ROOT / "datasets" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [
    ROOT / "projects" / "VIF" / "README.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "CONTRIBUTING.md",
]


def all_commands(start):
    for page in PAGES:
        for line in commands(page, start):
            yield pytest.param(line, id=f"{page.name}: {line[:60]}")


@pytest.mark.parametrize("line", all_commands("vif"))
def test_vif_commands_parse(line):
    build_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("line", all_commands(r"python train_net\.py"))
def test_training_commands_name_configs_and_options_that_exist(line):
    from fastreid.engine import default_argument_parser

    args = default_argument_parser().parse_args(shlex.split(line, comments=True)[2:])
    assert (ROOT / args.config_file).is_file()
    flags = [opt for opt in args.opts if opt.startswith("--")]
    assert set(flags) <= {"--eval-only", "--resume"}


@pytest.mark.parametrize("line", all_commands(r"python benchmarks/\w+\.py"))
def test_benchmark_commands_name_files_that_exist(line):
    assert (ROOT / line.split()[1]).is_file()


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readmes_code_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    found = {}
    exec(code, found)
    assert found["mixed"].shape == (256, 128, 3)
    assert (found["mixed"] != found["image"]).any()
    assert found["loss"].item() > 0
    assert 0 < found["scores"]["mAP"] <= 100


def test_make_demo_renders_trains_and_make_test_tests():
    def dry(target):
        return subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    demo = dry("demo")
    assert "vif synth --out datasets/SynthAG --ids 600 --seed 0" in demo
    assert "train_net.py --config-file configs/SynthAG/vif.yml" in demo
    assert "-m pytest" in dry("test")


def test_the_readme_shows_the_score_that_the_config_expects():
    import vif
    from fastreid.config import get_cfg

    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "SynthAG" / "vif.yml"))
    ((dataset, protocol, metric, value, tolerance),) = cfg.TEST.EXPECTED_RESULTS
    assert (dataset, protocol, metric) == ("SynthAG", "AG", "mAP")
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if "(AG)" in line)
    shown = float(row.split("|")[5].split()[0])
    assert abs(shown - value) <= tolerance
    assert value - tolerance > 10 * 0.4  # ten times a random ranking
