"""Configs, KEY VALUE pairs and sweeps of any content: read and checked, or an error of the project's own."""

from pathlib import Path

import vif
import yaml
from hypothesis import given
from hypothesis import strategies as st
from vif.config import leaves
from vif.config_file import read_config
from vif.experiments.sweep import read_sweep

from tests.faults.fuzz import fuzz, own_errors, some

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/SynthAG/vif.yml"
KEYS = [key for key, _ in leaves(read_config(str(CONFIG)))]
odd = st.sampled_from(
    [
        "",
        "None",
        "-1",
        "0",
        "1e400",
        "nan",
        "True",
        "()",
        "('a',)",
        "[1, 2]",
        "{1: 2}",
        "{[]: 1}",
        "\0",
        "'",
        "(" * 300,
    ]
)
scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), odd)
value = st.recursive(
    scalar,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(scalar, inner, max_size=2)),
    max_leaves=4,
)


@fuzz(150)
@given(st.lists(st.one_of(st.sampled_from(KEYS), st.text(max_size=12), odd), max_size=4), st.data())
def test_fuzzed_pairs(keys, data):
    opts = [part for key in keys for part in (key, data.draw(st.one_of(odd, value.map(str), value)))]
    with own_errors():
        vif.check_config(read_config(str(CONFIG), opts))


def nested(keys, values):
    tree = {}
    for key, entry in zip(keys, values):
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = entry
    return tree


def test_fuzzed_config_files(tmp_path):
    file = tmp_path / "x.yml"
    trees = st.builds(
        nested, st.lists(st.sampled_from(KEYS), max_size=3, unique=True), st.lists(value, max_size=3)
    )
    texts = st.one_of(trees, value, st.fixed_dictionaries({"_BASE_": value})).map(
        lambda tree: yaml.dump(tree).encode("utf-8", "surrogatepass")
    )

    @fuzz(150)
    @given(st.one_of(texts, some(CONFIG.read_bytes())))
    def read(content):
        file.write_bytes(content)
        with own_errors():
            vif.check_config(read_config(str(file)))

    read()


def test_fuzzed_sweeps(tmp_path):
    (tmp_path / "sweeps").mkdir()
    file = tmp_path / "sweeps" / "x.yml"
    changes = st.dictionaries(st.one_of(st.sampled_from([*KEYS, "config"]), scalar), value, max_size=2)
    specs = st.fixed_dictionaries(
        {
            "title": value,
            "config": st.one_of(st.just(str(CONFIG)), value),
            "seeds": st.one_of(st.just([1]), value),
        },
        optional={
            "arms": st.one_of(st.dictionaries(scalar, st.one_of(changes, value), max_size=2), value),
            "grids": st.one_of(st.dictionaries(scalar, st.one_of(changes, value), max_size=2), value),
            "set": st.one_of(changes, value),
            "baseline": value,
            "table": value,
        },
    ).map(lambda spec: yaml.dump(spec).encode("utf-8", "surrogatepass"))
    shipped = min((ROOT / "configs/sweeps").glob("*.yml")).read_bytes()

    @fuzz(100)
    @given(st.one_of(specs, specs, some(shipped)))
    def read(content):
        file.write_bytes(content)
        with own_errors():
            read_sweep(str(file), "SynthAG")

    read()
