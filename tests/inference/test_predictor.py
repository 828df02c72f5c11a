"""Predictor: the features of evaluation for images of any origin; threads, folders, failures, devices."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import vif
import cv2
import numpy as np
import pytest
import torch
from fastreid.engine import DefaultPredictor
from PIL import Image
from vif.data.build import build_test_loader, build_test_set
from vif.errors import ConfigError, DataError
from vif.evaluation.extract import extract_table
from vif.inference import ImageFailure
from vif.inference.build import choose_device, read_config
from vif.inference.fingerprint import fingerprint

from tests import fake_trees
from tests.tiny import tiny_cfg


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    """A tiny model's config; MODEL.WEIGHTS is its checkpoint, OUTPUT_DIR/data the images of four people."""
    root = tmp_path_factory.mktemp("predictor")
    fake_trees.make_synthag(root / "data", ids=4)
    path = root / "model.pth"
    cfg = tiny_cfg("SynthAG/vif.yml", root, "MODEL.HEADS.NUM_CLASSES", 4)
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(cfg)
    with torch.no_grad():  # batch statistics that matter
        model.heads.bottleneck[0].running_mean.normal_()
        model.heads.bottleneck[0].running_var.uniform_(0.5, 2)
    torch.save({"model": model.state_dict()}, path)
    return tiny_cfg("SynthAG/vif.yml", root, "MODEL.HEADS.NUM_CLASSES", 4, "MODEL.WEIGHTS", str(path))


@pytest.fixture(scope="module")
def predictor(cfg):
    return vif.Predictor(cfg, cfg.MODEL.WEIGHTS, device="cpu", batch_size=4, workers=2)


def changed(cfg, *opts):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(opts))
    return cfg


def photo(seed=0, height=50, width=21):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save_photos(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:03d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(photo(index)).save(path)
    return paths


def unit(features):
    """Rows of length 1, one by one."""
    return np.stack([row / np.sqrt(sum(float(value) ** 2 for value in row)) for row in features])


@pytest.mark.parametrize("flip", [False, True])
def test_features_are_those_of_evaluation(cfg, flip, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", f"{cfg.OUTPUT_DIR}/data")
    cfg = changed(cfg, "TEST.FLIP.ENABLED", flip, "TEST.IMS_PER_BATCH", 16)
    splits = build_test_set(cfg, "SynthAG").splits
    model = vif.VIFTrainer.load_model(cfg)
    table = extract_table(model, build_test_loader(cfg, splits), splits, flip)
    predictor = vif.Predictor(cfg, cfg.MODEL.WEIGHTS, device="cpu", batch_size=16)
    features = predictor(list(table.paths))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, unit(table.features), atol=1e-6)
    np.testing.assert_array_equal(
        features, table.features / np.linalg.norm(table.features, axis=1, keepdims=True)
    )
    assert len(np.unique(features.round(4), axis=0)) > len(features) / 2
    if flip:
        plain = vif.Predictor(changed(cfg, "TEST.FLIP.ENABLED", False), cfg.MODEL.WEIGHTS, device="cpu")
        assert np.abs(plain(list(table.paths)) - features).max() > 1e-3


def test_features_are_those_of_fastreids_predictor(cfg, predictor):
    pixels = np.asarray(Image.fromarray(photo()).resize((16, 32), Image.Resampling.BICUBIC))
    batch = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float()
    expected = DefaultPredictor(cfg)(batch).numpy()
    np.testing.assert_allclose(predictor(photo()), unit(expected)[0], atol=1e-6)


def test_every_kind_of_input_gives_the_same(predictor, tmp_path):
    path = save_photos(tmp_path, 1)[0]
    expected = predictor(path)
    assert (expected.shape, expected.dtype) == ((16,), np.float32)
    assert np.linalg.norm(expected) == pytest.approx(1, abs=1e-6)
    for one in (str(path), path.read_bytes(), Image.open(path), photo()):
        np.testing.assert_array_equal(predictor(one), expected)
    np.testing.assert_array_equal(predictor(cv2.imread(str(path)), colour="BGR"), expected)
    assert np.abs(predictor(cv2.imread(str(path))) - expected).max() > 1e-3
    mixed = [path, str(path), path.read_bytes(), Image.open(path), photo()]
    for many in (mixed, tuple(mixed), np.stack([photo()] * 5)):
        features = predictor(many)
        assert (features.shape, features.dtype) == ((5, 16), np.float32)
        np.testing.assert_allclose(features, np.stack([expected] * 5), atol=1e-6)
    np.testing.assert_allclose(
        predictor(np.stack([photo()])[..., ::-1], colour="BGR")[0], expected, atol=1e-6
    )
    assert predictor([]).shape == (0, 16)
    assert predictor([]).dtype == np.float32


def test_a_config_file_will_do(cfg, predictor, tmp_path):
    # as a run writes it, with a manifest that is not on this machine
    (tmp_path / "config.yaml").write_text(changed(cfg, "DATASETS.MANIFEST", "/of/another/machine.csv").dump())
    again = vif.Predictor(tmp_path / "config.yaml", cfg.MODEL.WEIGHTS, device="cpu")
    np.testing.assert_array_equal(again(photo()), predictor(photo()))
    assert again.signature == predictor.signature
    assert again.device == "cpu"


def test_the_signature_is_the_configs(cfg, predictor):
    found = predictor.signature
    assert (found.height, found.width, found.dim) == (32, 16, 16)
    assert (found.mean, found.std) == ((127.5,) * 3, (127.5,) * 3)
    assert (found.uint8_input, found.l2_output) == (True, False)
    cropping = changed(
        cfg, "INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", [32, 16], "INPUT.SIZE_TEST", [40, 24]
    )
    cropped = vif.Predictor(cropping, cfg.MODEL.WEIGHTS, device="cpu")
    assert (cropped.signature.height, cropped.signature.width) == (32, 16)
    inner = Image.fromarray(photo()).resize((24, 40), Image.Resampling.BICUBIC).crop((4, 4, 20, 36))
    np.testing.assert_allclose(cropped(photo()), predictor(inner), atol=1e-6)


def test_transparent_pixels_are_what_the_network_sees_as_zero(predictor):
    clear = np.zeros((32, 16, 4), dtype=np.uint8)
    np.testing.assert_array_equal(predictor(clear), predictor(np.full((32, 16, 3), 128, dtype=np.uint8)))


def test_a_folder_gives_a_table_and_what_failed(predictor, tmp_path):
    save_photos(tmp_path / "a", 6)
    save_photos(tmp_path / "b", 3)
    (tmp_path / "a" / "002.png").write_bytes(b"broken")
    (tmp_path / "b" / "empty.jpg").write_bytes(b"")
    (tmp_path / "away.png").symlink_to(tmp_path.parent / "x.png")
    table, failures = predictor(tmp_path)
    names = [f"a/{index:03d}.png" for index in (0, 1, 3, 4, 5)] + [f"b/{index:03d}.png" for index in range(3)]
    assert table.paths.tolist() == names
    assert [failure.path for failure in failures] == ["a/002.png", "away.png", "b/empty.jpg"]
    for row, name in zip(table.features, names):
        np.testing.assert_allclose(row, predictor(tmp_path / name), atol=1e-6)
    assert (set(table.pids), set(table.camids), set(table.views), set(table.splits)) == (
        {-1},
        {-1},
        {""},
        {""},
    )
    assert table.meta == {"fingerprint": predictor.fingerprint}
    table.save(str(tmp_path / "f.safetensors"))
    assert vif.features.FeatureTable.load(str(tmp_path / "f.safetensors")).meta == table.meta


def test_a_folder_without_a_usable_image(predictor, tmp_path):
    with pytest.raises(DataError, match="holds no image; files of images end as"):
        predictor(tmp_path)
    (tmp_path / "x.jpg").write_bytes(b"x")
    table, failures = predictor(str(tmp_path))
    assert table.features.shape == (0, 16)
    assert [failure.path for failure in failures] == ["x.jpg"]


def test_one_bad_image_is_an_error_that_names_it(predictor, tmp_path):
    paths = save_photos(tmp_path, 3)
    paths[1].write_bytes(b"broken")
    with pytest.raises(DataError, match=r"^image .*001\.png: no image of a known format"):
        predictor(paths[1])
    with pytest.raises(DataError, match=r"^number 1 of 3, image .*001\.png: no image"):
        predictor(paths)
    with pytest.raises(DataError, match=r"^number 2 of 3, image array: expected a uint8 array"):
        predictor([photo(), photo(), photo().astype(float)])
    with pytest.raises(DataError, match="^image bytes: no image of a known format"):
        predictor(b"broken")
    with pytest.raises(DataError, match=r"none\.jpg: there is no such file"):
        predictor(tmp_path / "none.jpg")


def test_a_stream_goes_on_after_failures_in_order(predictor, tmp_path):
    paths = save_photos(tmp_path, 11)
    for index in (0, 4, 5, 6, 7, 10):  # a whole batch of four among them
        paths[index].write_bytes(b"broken")
    found = list(predictor.stream(iter(paths)))
    assert [path for path, _ in found] == paths
    for index, (path, result) in enumerate(found):
        if index in (0, 4, 5, 6, 7, 10):
            assert isinstance(result, ImageFailure)
            assert result.path == str(path)
        else:
            np.testing.assert_allclose(result, predictor(photo(index)), atol=1e-6)


def test_a_stream_reads_two_batches_ahead_at_most(predictor):
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield photo(read[-1])

    stream = predictor.stream(endless())
    for taken in range(1, 20):
        next(stream)
        assert len(read) <= (taken - 1) // 4 * 4 + 8


def test_a_stream_that_is_left_stops_decoding(cfg, monkeypatch):
    predictor = vif.Predictor(cfg, cfg.MODEL.WEIGHTS, device="cpu", batch_size=4, workers=1)
    decode, done = predictor._pixels, []

    def slowly(*arguments):
        time.sleep(0.05)
        done.append(None)
        return decode(*arguments)

    monkeypatch.setattr(predictor, "_pixels", slowly)
    stream = predictor.stream([photo()] * 12)
    next(stream)
    stream.close()
    count = len(done)
    time.sleep(0.3)
    assert len(done) == count < 8


def test_threads_share_a_predictor(predictor, tmp_path):
    paths = save_photos(tmp_path, 24)
    serial = [predictor(path) for path in paths]
    together = predictor(paths)

    def ask(index):
        one = predictor(paths[index])
        many = predictor(paths[index : index + 6])
        return one, many

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, list(range(24)) * 3))
    for index, (one, many) in zip(list(range(24)) * 3, answers):
        np.testing.assert_array_equal(one, serial[index])
        np.testing.assert_allclose(many, together[index : index + 6], atol=1e-6)


def test_a_call_leaves_no_trace_in_inputs_and_model(predictor):
    batch = np.stack([photo(1), photo(2)])
    before, state = batch.copy(), {k: v.clone() for k, v in predictor.backend.model.state_dict().items()}
    first = predictor(batch)
    np.testing.assert_array_equal(predictor(batch), first)
    np.testing.assert_array_equal(batch, before)
    assert all(torch.equal(value, state[key]) for key, value in predictor.backend.model.state_dict().items())
    assert not predictor.backend.model.training
    pixels = np.stack([np.full((32, 16, 3), 7, np.uint8)])
    predictor.backend(pixels)
    assert (pixels == 7).all()


def test_the_fingerprint_is_of_the_weights(cfg, predictor, tmp_path):
    state = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"]
    digest = hashlib.sha256()
    for name in sorted(set(state) - {"heads.weight"}):
        array = state[name].numpy()
        digest.update(f"{name} {state[name].dtype} {array.shape}\n".encode() + array.tobytes())
    assert predictor.fingerprint == digest.hexdigest()[:16]
    assert fingerprint({**state, "heads.weight": torch.zeros(9, 16)}) == predictor.fingerprint
    others = [
        {**state, "heads.bottleneck.0.bias": state["heads.bottleneck.0.bias"] + 1e-6},
        {**state, "more": torch.zeros(1)},
        {name: value for name, value in state.items() if name != "backbone.norm.bias"},
        {**state, "backbone.pos_embed": state["backbone.pos_embed"].double()},
        {**state, "backbone.pos_embed": state["backbone.pos_embed"].flatten()},
    ]
    assert len({fingerprint(other) for other in others} | {predictor.fingerprint}) == 6
    heads = {"heads.classifiers.0.weight": torch.zeros(2), "b21_head.weight": torch.zeros(2)}
    assert fingerprint({**state, **heads}) == predictor.fingerprint
    assert fingerprint({**state, "view_heads.weight": torch.zeros(2)}) != predictor.fingerprint


def test_broken_weights_are_said(cfg, tmp_path):
    checkpoint = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)
    checkpoint["model"]["heads.bottleneck.0.bias"][0] = float("nan")
    torch.save(checkpoint, tmp_path / "nan.pth")
    predictor = vif.Predictor(cfg, tmp_path / "nan.pth", device="cpu")
    with pytest.raises(DataError, match="the network gives NaN or infinity"):
        predictor(photo())


def test_a_network_of_nothing_gives_zeros_not_nan(cfg, tmp_path):
    checkpoint = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)
    for name in ("weight", "bias"):
        checkpoint["model"][f"heads.bottleneck.0.{name}"].zero_()
    torch.save(checkpoint, tmp_path / "zero.pth")
    assert (vif.Predictor(cfg, tmp_path / "zero.pth", device="cpu")(photo()) == 0).all()


def test_the_device_is_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert [choose_device(name) for name in ("auto", "cuda", "cuda:0", "cpu")] == [
        "cuda",
        "cuda",
        "cuda:0",
        "cpu",
    ]
    with pytest.raises(ConfigError, match="device='cuda:1': torch finds 1 usable GPUs here"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(
        ConfigError, match="device='cuda': torch finds 0 usable GPUs here; choose auto or cpu"
    ):
        choose_device("cuda")
    with pytest.raises(ConfigError, match="device='gpu' is unknown to torch"):
        choose_device("gpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be an integer of 1 or more"),
        ({"workers": 0}, "workers=0 must be"),
        ({"max_pixels": True}, "max_pixels=True must be"),
        ({"batch_size": 2.0}, r"batch_size=2\.0 must be"),
        ({"device": "gpu"}, "device='gpu' is unknown"),
    ],
)
def test_arguments_are_checked(cfg, options, message):
    with pytest.raises(ConfigError, match=message):
        vif.Predictor(cfg, cfg.MODEL.WEIGHTS, **{"device": "cpu", **options})


def test_other_errors_name_what_is_wrong(cfg, predictor, tmp_path):
    with pytest.raises(ConfigError, match="there is no config file"):
        read_config(str(tmp_path / "none.yml"))
    with pytest.raises((ConfigError, DataError), match=r"none\.pth"):
        vif.Predictor(cfg, tmp_path / "none.pth", device="cpu")
    with pytest.raises(ConfigError, match=r"INPUT\.SIZE_TEST=\[32\] leaves images of many sizes"):
        vif.Predictor(changed(cfg, "INPUT.SIZE_TEST", [32]), cfg.MODEL.WEIGHTS, device="cpu")
    for call in (predictor, lambda *a: list(predictor.stream([a[0]], a[1]))):
        with pytest.raises(ConfigError, match="colour='rgb' is unknown"):
            call(photo(), "rgb")


def test_an_image_that_cannot_be_resized_is_a_failure(cfg, predictor, monkeypatch):
    def refuse(*_):
        raise ValueError("height and width must be > 0")

    monkeypatch.setattr(predictor, "_transform", refuse)
    with pytest.raises(DataError, match=r"image array: cannot be resized \(height and width"):
        predictor(photo())
