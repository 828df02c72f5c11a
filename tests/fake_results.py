"""Results files as `vif sweep` writes them, with scores chosen by the test."""

import json

VALID = {"ALL": 312, "AG": 160}


def scores(mean_ap, valid):
    """Scores of one protocol around an mAP: Rank-1 ten points above it, mINP a fourth of it."""
    names = {"Rank-1": mean_ap + 10, "Rank-5": mean_ap + 20, "Rank-10": mean_ap + 25}
    counts = {"queries": valid, "valid_queries": valid, "gallery": 1000}
    return {**names, "mAP": mean_ap, "mINP": mean_ap / 4, **counts}


def run(arm, seed, mean_ap, dataset="SynthAG", grid="", values=None, collapsed=False, valid=None):
    """A finished run; AG's mAP is five below ALL's."""
    valid = valid or VALID
    cells = {name: scores(mean_ap - 5 * (name == "AG"), count) for name, count in valid.items()}
    entry = unfinished(arm, seed, "done", grid=grid, values=values)
    return {**entry, "results": {dataset: cells}, "geometry": {}, "collapsed": collapsed}


def unfinished(arm, seed, status="waiting", error="", grid="", values=None):
    """A run without results."""
    fixed = {"id": f"{arm}-{seed}", "config": "SynthAG/vit.yml", "set": {}}
    state = {"status": status, "error": error}
    return {**fixed, "arm": arm, "seed": seed, "grid": grid, "values": values or {}, **state}


def write(folder, runs, name="table3.json", **keys):
    """The file's path."""
    content = {"format": "vif-sweep/1", "sweep": "table3", "title": "Components", "table": "3", "machine": {}}
    content.update(data="SynthAG", baseline="Baseline", runs=runs)
    path = folder / name
    path.write_text(json.dumps({**content, **keys}))
    return str(path)


def table3():
    """Runs of Table 3 with everything that goes wrong: a failed seed, a waiting one, a collapsed one."""
    means = {"Baseline": (40, 42, 41), "+PLRM": (41, 43.5, 42), "+VIAL": (44, 41), "+PLRM+VIAL": (45, 47, 46)}
    runs = [run(arm, seed, value) for arm, values in means.items() for seed, value in enumerate(values)]
    runs[4]["collapsed"] = True  # +PLRM, seed 1
    runs.insert(8, unfinished("+VIAL", 2, "failed", "CUDA out of memory"))
    runs[-1] = unfinished("+PLRM+VIAL", 2)
    return runs


def beta_grid(seeds=3):
    """A grid of one key, its points not in order, mAP of ALL 20 + seed + beta / 10."""
    key = "MODEL.LOSSES.VIAL.BETA"
    return [
        run(f"BETA={beta}", seed, 20 + seed + beta / 10, grid="beta", values={key: beta})
        for beta in (15.0, 5.0, 10.0)
        for seed in range(seeds)
    ]
