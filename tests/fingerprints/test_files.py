"""The file of a fingerprint: it comes back whole, and what is damaged, forged or no fingerprint is refused."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import struct
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from small_fingerprints import (
    OUTPUTS,
    QUERIES,
    calibration_models,
    handmade,
    handmade_of_version_1,
    handmade_task,
    member,
    numbers,
    rule,
    small_fingerprint,
)

import metav
from metav import _core
from metav.errors import ArtefactError, InputError
from metav.fingerprints.files import DOCUMENT, FORMAT_VERSION, LIMITS, TENSORS, commitment_of, read_file, write_file
from metav.fingerprints.fingerprint import derive_salt, load
from metav.statistics.calibration import calibrate
from metav.verifiers.meta_verifier import MetaVerifier

GOLDEN = {
    1: (
        "81ac4df6e930e21e85b9f47c0b83f7f4f98d514843a67e84ec48d65ab5a48dab",
        "7c61d7cfa19c25d20e9fe21bd42b6902387da5aeb0732ba6002bfd4be2e7864d",
    ),
    2: (
        "44de83c4aa2f71966de737d460da665cb63b7c64f8872830fab9863c52e7b01d",
        "b333e664be1813cf36d93237a6853bca7669146c7765bc50396b767a0a6d3cf6",
    ),
}
"""By format version: SHA-256 of the file of a hand-made fingerprint, and its commitment."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "owner.metav"


@pytest.fixture
def saved(path):
    handmade().save(path)
    return path


def members_of(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, change) -> None:
    """Change document and tensors of a file, with a commitment that fits: what a forger would write."""
    document, tensors = (copy.deepcopy(part) for part in read_file(path))
    change(document, tensors)
    document["commitment"] = commitment_of(document["salt"], document, tensors)
    write_file(path, document, tensors)


@pytest.mark.parametrize("version", [1, 2])
def test_the_format_is_the_one_of_its_version(version, path):
    # a fixed rule: one that is computed may differ in the last digit elsewhere
    fp = handmade_of_version_1() if version == 1 else handmade(calibration=rule())
    fp.save(path)
    assert (hashlib.sha256(path.read_bytes()).hexdigest(), fp.commitment) == GOLDEN[version]
    assert fp.format_version == version


def test_new_fingerprints_have_the_newest_version(saved):
    assert json.loads(members_of(saved)[DOCUMENT])["format_version"] == FORMAT_VERSION == 2


MADE = {
    "handmade": handmade,
    "of version 1": handmade_of_version_1,
    "without calibration models": lambda: handmade(calibration_models=None),
    "without true answers": lambda: handmade(truth=None),
    "a classifier's": lambda: handmade(view="relative"),
    "made from a zoo": small_fingerprint,
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_loaded_fingerprint_scores_and_saves_bit_for_bit_the_same(make, path, tmp_path):
    fp = make()
    fp.save(path)
    loaded = load(path)
    responses = np.random.default_rng(0).normal(size=(9, len(fp.queries), fp.task.outputs)).astype(np.float32)
    assert loaded.scores(responses).tobytes() == fp.scores(responses).tobytes()
    assert loaded.logits(responses).tobytes() == fp.logits(responses).tobytes()
    assert loaded.queries.tobytes() == fp.queries.tobytes()
    assert loaded.to_dict() == fp.to_dict()
    assert loaded.commitment == fp.commitment
    assert loaded.format_version == fp.format_version
    loaded.save(tmp_path / "again.metav")
    assert (tmp_path / "again.metav").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("make", [handmade, small_fingerprint], ids=["handmade", "made from a zoo"])
def test_what_version_2_adds_comes_back_whole(make, path):
    fp = make()
    fp.save(path)
    loaded = load(path)
    for name in ("responses", "derived", "free", "finished", "parts"):
        kept, made = (getattr(each.calibration_models, name) for each in (loaded, fp))
        assert (kept.dtype, kept.shape, kept.tobytes()) == (made.dtype, made.shape, made.tobytes())
        assert not kept.flags.writeable
    assert loaded.calibration_models.families == fp.calibration_models.families
    assert (loaded.truth.dtype, loaded.truth.tolist()) == (fp.truth.dtype, fp.truth.tolist())
    assert loaded.check == fp.check != {}
    assert [part.part for part in loaded.meta_verifier.members] == [part.part for part in fp.meta_verifier.members]
    assert loaded.calibration_models.shares == fp.calibration_models.shares
    responses = fp.calibration_models.responses[fp.calibration_models.judged]
    assert loaded.calibration_logits(responses).tobytes() == fp.calibration_logits(responses).tobytes()


def test_the_rule_follows_from_the_calibration_models_in_the_file(path):
    """Whoever has the file can make the threshold anew; each model is judged by members that did not train on it."""
    fp = small_fingerprint()
    fp.save(path)
    loaded = load(path)
    models = loaded.calibration_models
    own, independent = models.calibrating, ~models.derived & ~models.free
    logits = np.full(len(models.parts), np.nan)
    logits[models.judged] = loaded.calibration_logits(models.responses[models.judged])
    others = [logits[models.of_share(name) & independent & models.finished] for name in ("optimize", "select")]
    assert all(len(group) > 1 and np.isfinite(group).all() for group in others)
    again = calibrate(
        logits[own & models.derived], logits[own & independent], others=others, target_fpr=loaded.calibration.target_fpr
    )
    assert again.negatives == pytest.approx(loaded.calibration.negatives, abs=1e-5)
    assert again.positives == pytest.approx(loaded.calibration.positives, abs=1e-5)
    assert again.threshold == pytest.approx(loaded.calibration.threshold, abs=1e-5)
    assert len(set(models.parts[own].tolist())) > 1


def test_version_1_has_no_calibration_models(path):
    handmade_of_version_1().save(path)
    loaded = load(path)
    assert (loaded.calibration_models, loaded.truth, loaded.check) == (None, None, {})
    assert "part" not in json.loads(members_of(path)[DOCUMENT])["verifier"][0]
    with pytest.raises(InputError, match="version 1 holds no calibration models; make it again"):
        loaded.calibration_logits(numbers(5, QUERIES, OUTPUTS))


@pytest.mark.parametrize("kind", ["mlp", "local", "matched"])
def test_every_verifier_kind_survives_the_file(kind, path):
    fp = handmade(meta_verifier=MetaVerifier((member(kind, 0, QUERIES),)))
    fp.save(path)
    responses = numbers(5, QUERIES, OUTPUTS, seed=9)
    assert load(path).logits(responses).tobytes() == fp.logits(responses).tobytes()


@pytest.mark.parametrize("view", ["identity", "logprob"])
def test_a_member_that_reads_distances_from_the_owner_survives_the_file(view, path):
    reference, verifier = numbers(QUERIES, OUTPUTS, seed=5), _core.Verifier("mlp", QUERIES, 2 * OUTPUTS, hidden=4)
    verifier.standardize(numbers(5, QUERIES, 2 * OUTPUTS))
    part = replace(member("mlp", 0, QUERIES), verifier=verifier, reference=reference, view=view)
    fp = handmade(meta_verifier=MetaVerifier((part,)))
    fp.save(path)
    loaded = load(path)
    responses = numbers(5, QUERIES, OUTPUTS, seed=9)
    assert loaded.logits(responses).tobytes() == fp.logits(responses).tobytes()
    assert loaded.to_dict() == fp.to_dict()
    for name, shape in (("reference", (QUERIES, 2)), ("shift", (QUERIES, OUTPUTS))):
        fp.save(path)
        rewrite(path, tensor(f"verifier.0.{name}", np.zeros(shape, F32)))
        with pytest.raises(ArtefactError, match=rf"verifier\.0\.{name} has shape"):
            load(path)
    with pytest.raises(InputError, match=r"the reference of verifier mlp:all has shape \(6, 2\), expected \(6, 3\)"):
        handmade(meta_verifier=MetaVerifier((replace(part, reference=reference[:, :2]),)))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=3),
    numbers_=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
    seed=st.integers(0, 2**63),
    text=st.text(max_size=20),
)
def test_any_content_comes_back_whole(shape, numbers_, seed, text, tmp_path_factory):
    path = tmp_path_factory.mktemp("content") / "owner.metav"
    fp = handmade(
        task=handmade_task(input_shape=tuple(shape), name=text),
        queries=numbers(QUERIES, *shape),
        lower=np.full(shape, -4, np.float32),
        upper=np.full(shape, 4, np.float32),
        calibration=rule(negatives=np.sort(numbers_), threshold=numbers_[0]),
        seed=seed,
        zoo={text: numbers_, "nested": {"none": None, "flag": True}},
    )
    fp.save(path)
    assert load(path).to_dict() == fp.to_dict()
    assert load(path).calibration.negatives.tobytes() == np.sort(numbers_).tobytes()


def test_the_commitment_is_the_digest_over_salt_and_sorted_content(saved):
    members = members_of(saved)
    document = json.loads(members[DOCUMENT])
    salt = document.pop("salt")
    stated = document.pop("commitment")
    parts = [bytes.fromhex(salt), json.dumps(document, sort_keys=True, separators=(",", ":")).encode()]
    for name, array in sorted(safetensors.numpy.load(members[TENSORS]).items()):
        shape = json.dumps(array.shape, separators=(",", ":"))
        parts += [name.encode(), str(array.dtype).encode(), shape.encode(), array.tobytes()]
    expected = hashlib.sha256(b"".join(struct.pack(">Q", len(part)) + part for part in parts)).hexdigest()
    assert stated == expected == load(saved).commitment


def changed_models(**changes):
    return replace(calibration_models(), **changes)


@pytest.mark.parametrize(
    "change",
    [
        {"queries": np.nextafter(numbers(QUERIES, 2, 2), np.float32(9))},
        {"adaptive": 3, "truth": numbers(3, OUTPUTS, seed=6)},
        {"lower": np.full((2, 2), -5, np.float32)},
        {"seed": 4},
        {"salt": derive_salt(4, "0" * 64)},
        {"salt": derive_salt(3, "1" + "0" * 63)},
        {"calibration": rule(threshold=np.nextafter(0.5, 1))},
        {"calibration": rule(positives=np.array([1.0]))},
        {"meta_verifier": MetaVerifier((member("mlp", 0, 6),))},
        {"zoo": {}},
        {"options": {"queries": 7}},
        {"history": {"steps": 1}},
        {"versions": {"metav": "0.3.0"}},
        {"task": handmade_task(view="logprob")},
        {"calibration_models": None},
        {"calibration_models": changed_models(responses=np.nextafter(calibration_models().responses, np.float32(9)))},
        {"calibration_models": changed_models(derived=np.arange(56) < 5)},
        {"calibration_models": changed_models(free=np.arange(56) >= 53)},
        {"calibration_models": changed_models(families=("prune", *calibration_models().families[1:]))},
        {"truth": None},
        {"truth": numbers(2, OUTPUTS, seed=8)},
        {"check": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_commitment_changes_with_any_part_of_the_content(change):
    assert handmade(**change).commitment != handmade().commitment


def test_the_commitment_changes_with_parts_and_shares():
    fp = small_fingerprint()
    models = fp.calibration_models
    assert len(set(models.parts.tolist())) > 1
    assert len(set(models.shares)) == 4
    turned = np.where(models.judged, (models.parts + 1) % 5, models.parts)
    for change in (
        {"parts": turned},
        {"shares": (*models.shares[:-1], "select")},
        {"finished": ~models.finished},
    ):
        assert replace(fp, calibration_models=replace(models, **change)).commitment != fp.commitment


def test_the_file_holds_a_stored_zip_of_two_members_without_metadata(saved):
    with zipfile.ZipFile(saved) as archive:
        assert archive.namelist() == ["metav.json", "tensors.safetensors"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    tensors = members_of(saved)[TENSORS]
    header = json.loads(tensors[8 : 8 + struct.unpack("<Q", tensors[:8])[0]])
    assert "__metadata__" not in header


def test_a_fingerprint_does_not_change_with_the_arrays_it_was_made_from():
    queries, zoo = numbers(QUERIES, 2, 2), {"rows": [1]}
    fp = handmade(queries=queries, zoo=zoo)
    before = fp.commitment
    queries += 1
    zoo["rows"].append(2)
    assert fp.commitment == before
    with pytest.raises(ValueError, match="read-only"):
        fp.queries[0] = 0


def test_a_reader_beside_a_writer_sees_whole_files_only(path):
    versions = [handmade(seed=seed) for seed in (1, 2)]
    versions[0].save(path)
    stop = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(load(path).seed)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        versions[number % 2].save(path)
    stop.set()
    reader.join()
    assert seen
    assert set(seen) <= {1, 2}
    assert os.listdir(path.parent) == ["owner.metav"]


@pytest.mark.parametrize("place", ["missing/owner.metav", "folder"])
def test_a_save_that_fails_leaves_nothing_behind(place, tmp_path):
    (tmp_path / "folder" / "kept").mkdir(parents=True)
    with pytest.raises(ArtefactError, match=r"cannot write .* choose a file in an existing folder"):
        handmade().save(tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == ["folder"]


def test_the_file_is_for_its_owner_only(saved):
    assert saved.stat().st_mode & 0o077 == 0


def test_any_flipped_byte_is_noticed(saved):
    raw = saved.read_bytes()
    random = np.random.default_rng(0)
    for place in random.permutation(len(raw))[:600]:
        damaged = bytearray(raw)
        damaged[place] ^= int(random.integers(1, 256))
        saved.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"owner\.metav .*; "):
            load(saved)


def test_any_flipped_byte_of_a_member_is_noticed_even_with_a_new_checksum(saved):
    members = members_of(saved)
    random = np.random.default_rng(1)
    for name, content in members.items():
        for place in random.permutation(len(content))[:150]:
            damaged = bytearray(content)
            damaged[place] ^= int(random.integers(1, 256))
            rezip(saved, {**members, name: bytes(damaged)})
            with pytest.raises(ArtefactError, match=r"owner\.metav"):
                load(saved)


def rezip(path, members) -> None:
    """The members as metav zips them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o600 << 16
            archive.writestr(info, content)


def test_any_truncation_is_noticed(saved):
    raw = saved.read_bytes()
    for length in [*range(0, len(raw), 37), len(raw) - 1]:
        saved.write_bytes(raw[:length])
        with pytest.raises(ArtefactError, match=r"is no intact zip file .* get an intact copy"):
            load(saved)


@pytest.mark.parametrize("change", [lambda raw: raw + b"x", lambda raw: b"x" + raw], ids=["behind", "in front"])
def test_bytes_around_the_zip_are_noticed(change, saved):
    saved.write_bytes(change(saved.read_bytes()))
    with pytest.raises(ArtefactError, match=r"zip structure differs|no intact zip"):
        load(saved)


def test_a_comment_or_another_time_is_noticed(saved):
    members = members_of(saved)
    with zipfile.ZipFile(saved, "a") as archive:
        archive.comment = b"hello"
    with pytest.raises(ArtefactError, match="zip structure differs"):
        load(saved)
    with zipfile.ZipFile(saved, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ArtefactError, match="zip structure differs"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {**m, "extra.txt": b""}, r"has the members metav\.json, tensors\.safetensors, extra\.txt, expected"),
        (lambda m: {DOCUMENT: m[DOCUMENT]}, r"has the members metav\.json, expected exactly"),
        (lambda m: dict(reversed(m.items())), r"has the members tensors\.safetensors, metav\.json"),
        (lambda m: {}, "has the members none"),
    ],
    ids=["extra", "missing", "order", "empty"],
)
def test_other_members_are_refused(change, message, saved):
    rezip(saved, change(members_of(saved)))
    with pytest.raises(ArtefactError, match=message):
        load(saved)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(TENSORS, b"other")
    with pytest.raises(ArtefactError, match=r"tensors\.safetensors, tensors\.safetensors, expected exactly"):
        load(saved)


def test_compressed_members_are_refused(saved):
    members = members_of(saved)
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ArtefactError, match=r"compressed member metav\.json, expected stored members"):
        load(saved)


def test_a_member_that_claims_to_be_huge_is_refused_unread(saved):
    claimed = LIMITS[DOCUMENT] + 1
    raw = bytearray(saved.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    struct.pack_into("<II", raw, entry + 20, claimed, claimed)
    saved.write_bytes(raw)
    with pytest.raises(
        ArtefactError, match=rf"has {claimed} bytes in metav\.json, expected at most {LIMITS[DOCUMENT]}"
    ):
        load(saved)


def test_an_oversize_file_is_refused_unread(path):
    with open(path, "wb") as file:
        file.truncate(sum(LIMITS.values()) + 2**20)  # sparse: takes no room
    with pytest.raises(ArtefactError, match=r"has \d+ bytes, expected at most"):
        load(path)


def test_a_document_too_large_to_be_read_is_not_written(path):
    with pytest.raises(ArtefactError, match=r"metav\.json of .* has \d+ bytes, expected at most"):
        handmade(zoo={"text": "x" * LIMITS[DOCUMENT]}).save(path)
    assert not path.exists()


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match=r"there is no file .*nowhere\.metav; .* check the path"):
        load(tmp_path / "nowhere.metav")
    with pytest.raises(ArtefactError, match=r"cannot read .* check its path"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtefactError, match="not a regular file"):
        load(tmp_path / "pipe")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ArtefactError, match=r"is no fingerprint; .* the fingerprint is named before the suspect"):
        load(tmp_path / "text")
    with pytest.raises(InputError, match="path must be a text or a path, got int"):
        load(3)


def set_in(*keys, to):
    def change(document, tensors):
        place = document
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return change


def tensor(name, value):
    return lambda document, tensors: tensors.__setitem__(name, np.asarray(value))


def without(name):
    return lambda document, tensors: tensors.pop(name)


def drop(*keys):
    def change(document, tensors):
        place = document
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


F32 = np.float32


NAN = np.full((12, 4), np.nan, F32)


FORGERIES = {
    "major version": (
        set_in("format_version", to=3),
        rf"format version 3, expected {FORMAT_VERSION} or less; .* upgrade",
    ),
    "version 0": (set_in("format_version", to=0), "format version 0"),
    "version before its entries": (
        set_in("format_version", to=1),
        "unknown or missing entries: calibration_models, check",
    ),
    "version as text": (set_in("format_version", to="1"), "format version '1'"),
    "version as flag": (set_in("format_version", to=True), "format version True"),
    "other format": (set_in("format", to="zoo"), "of another kind"),
    "unknown entry": (set_in("surprise", to=1), "unknown or missing entries: surprise"),
    "missing entry": (drop("seed"), "unknown or missing entries: seed"),
    "unknown task entry": (set_in("task", "surprise", to=1), "task has the entries"),
    "missing task entry": (drop("task", "levels"), "task has the entries"),
    "task as text": (set_in("task", to="x"), "do not fit"),
    "unknown view": (set_in("verifier", 0, "view", to="guess"), "unknown view"),
    "unknown kind": (set_in("verifier", 0, "kind", to="forest"), "kind 'forest', expected one of mlp"),
    "no members": (set_in("verifier", to=[]), "member"),
    "members as text": (set_in("verifier", to="mlp"), "verifier must be a list"),
    "member as text": (set_in("verifier", 0, to="mlp"), "do not fit"),
    "member start": (
        set_in("verifier", 0, "start", to=-1),
        "reads the queries -1 to 4, expected a range within 0 to 6",
    ),
    "member stop": (set_in("verifier", 1, "stop", to=7), "reads the queries 4 to 7"),
    "member empty": (set_in("verifier", 1, "start", to=6), "reads the queries 6 to 6"),
    "member start fraction": (set_in("verifier", 1, "start", to=4.0), "must be whole numbers"),
    "member length": (
        set_in("verifier", 0, "stop", to=3),
        r"shift has shape \(4, 3\), expected \(3, 3\)",
    ),
    "member outputs": (set_in("verifier", 0, "outputs", to=2), r"verifier\.0 reads 2 outputs, expected 3"),
    "member hidden": (set_in("verifier", 0, "hidden", to=5), r"weight1 has shape \(12, 4\), expected \(12, 5\)"),
    "vast hidden": (set_in("verifier", 0, "hidden", to=2**62), "hidden must be >= 1 and their product must fit"),
    "vast unused hidden": (set_in("verifier", 1, "hidden", to=2**80), "do not fit"),
    "member weight": (set_in("verifier", 0, "weight", to=-0.5), "expected finite, >= 0, > 0"),
    "member weights": (set_in("verifier", 0, "weight", to=0.5), "weights of the verifiers must sum to 1"),
    "member spread": (set_in("verifier", 0, "spread", to=0.0), "expected finite, >= 0, > 0"),
    "missing center": (drop("verifier", 0, "center"), "'center' is missing"),
    "outputs": (set_in("task", "outputs", to=4), "reads 3 outputs, expected 4"),
    "input shape": (set_in("task", "input_shape", to=[4]), r"queries must have shape \(N, 4\)"),
    "negative input shape": (set_in("task", "input_shape", to=[-2, 2]), "must be whole numbers from 1"),
    "levels": (set_in("task", "levels", to=0), "must be whole numbers from 1"),
    "adaptive": (set_in("adaptive", to=7), "adaptive must be a whole number from 0 to 6"),
    "seed": (set_in("seed", to=0.5), "seed must be a whole number"),
    "threshold": (set_in("calibration", "threshold", to=None), "must be finite numbers"),
    "slope": (set_in("calibration", "slope", to=-1.0), "slope must be above 0"),
    "rate": (set_in("calibration", "target_fpr", to=1.5), r"target_fpr in \(0, 1\)"),
    "calibration entry": (set_in("calibration", "surprise", to=1), "do not fit"),
    "no queries": (without("queries"), "tensor queries must be there as float32"),
    "queries dtype": (tensor("queries", np.zeros((6, 2, 2))), "tensor queries must be there as float32"),
    "queries shape": (tensor("queries", np.zeros((6, 2, 3), F32)), r"queries must have shape \(N, 2, 2\)"),
    "fewer queries": (tensor("queries", np.zeros((5, 2, 2), F32)), "reads the queries 4 to 6"),
    "empty queries": (tensor("queries", np.zeros((0, 2, 2), F32)), "do not fit"),
    "scalar queries": (tensor("queries", F32(1)), "do not fit"),
    "queries NaN": (tensor("queries", np.full((6, 2, 2), np.nan, F32)), "queries must be finite"),
    "lower shape": (tensor("lower", np.zeros((2,), F32)), r"lower must have the input's shape \(2, 2\), got \(2,\)"),
    "upper infinite": (tensor("upper", np.full((2, 2), np.inf, F32)), "upper must be finite"),
    "bounds swapped": (tensor("lower", np.full((2, 2), 9, F32)), "lower must not exceed upper"),
    "weights NaN": (tensor("verifier.0.weight1", NAN), r"tensor verifier\.0\.weight1 must .* finite"),
    "weights dtype": (tensor("verifier.0.bias2", np.zeros(1)), r"tensor verifier\.0\.bias2 must .* float32"),
    "weights shape": (tensor("verifier.0.bias1", np.zeros(5, F32)), "do not fit"),
    "missing weights": (without("verifier.1.bias"), "do not fit"),
    "missing shift": (without("verifier.1.shift"), r"verifier\.1\.shift' is missing"),
    "extra weights": (tensor("verifier.0.surprise", np.zeros(5, F32)), "do not fit"),
    "weights of nobody": (tensor("verifier.7.bias", np.zeros(5, F32)), r"tensor verifier\.7\.bias must belong"),
    "reference of a plain member": (
        tensor("verifier.0.reference", np.zeros((4, 3), F32)),
        r"shift has shape \(4, 3\), expected \(4, 6\)",
    ),
    "extra tensor": (tensor("surprise", np.zeros(5, F32)), "tensor surprise must belong to a member"),
    "no negatives": (tensor("calibration.negatives", np.zeros(0)), "calibration negatives must be a non-empty sorted"),
    "unsorted": (tensor("calibration.positives", [2.0, 1.0]), "calibration positives must be a non-empty sorted"),
    "negatives dtype": (tensor("calibration.negatives", np.zeros(3, F32)), "negatives must be there as float64"),
    "negatives NaN": (tensor("calibration.negatives", [np.nan]), "negatives must be finite"),
    "missing calibration models": (drop("calibration_models"), "unknown or missing entries: calibration_models"),
    "missing check": (drop("check"), "unknown or missing entries: check"),
    "models without responses": (without("calibration.responses"), "calibration models need their responses"),
    "responses without models": (set_in("calibration_models", to=None), "calibration models need their responses"),
    "unknown models entry": (set_in("calibration_models", "surprise", to=1), "calibration_models has the entries"),
    "missing models entry": (drop("calibration_models", "free"), "calibration_models has the entries"),
    "models as text": (set_in("calibration_models", to="x"), "do not fit"),
    "responses dtype": (tensor("calibration.responses", np.zeros((56, 6, 3))), "responses must be float32"),
    "responses NaN": (tensor("calibration.responses", np.full((56, 6, 3), np.nan, F32)), "responses must be finite"),
    "responses of other queries": (
        tensor("calibration.responses", np.zeros((56, 5, 3), F32)),
        r"responses must have shape \(models, 6, 3\)",
    ),
    "responses without outputs": (tensor("calibration.responses", np.zeros((56, 6), F32)), "do not fit"),
    "no responses": (tensor("calibration.responses", np.zeros((0, 6, 3), F32)), "do not fit"),
    "a model too few": (tensor("calibration.responses", np.zeros((55, 6, 3), F32)), r"must have shape \(55,\)"),
    "families too few": (set_in("calibration_models", "families", to=["noise"]), "families must be 56 names, got 1"),
    "family as number": (set_in("calibration_models", "families", 0, to=3), "families must be 56 names"),
    "free and derived": (set_in("calibration_models", "free", 0, to=True), "free negative cannot derive"),
    "unknown share": (set_in("calibration_models", "shares", 0, to="test"), "shares must be 56 of owner, optimize"),
    "none calibrates": (set_in("calibration_models", "shares", to=["select"] * 56), "one of them calibrate at least"),
    "shares too few": (set_in("calibration_models", "shares", to=["calibrate"]), "shares must be 56 of"),
    "negative part": (set_in("calibration_models", "parts", 0, to=-1), "parts are numbers from 0"),
    "part of nobody": (set_in("calibration_models", "parts", 0, to=7), "needs members of that part"),
    "truth too short": (tensor("queries.truth", np.zeros((1, 3))), "truth must hold 2 finite answers"),
    "truth NaN": (tensor("queries.truth", np.full((2, 3), np.nan)), "truth must hold 2 finite answers"),
    "truth as flags": (tensor("queries.truth", np.ones((2, 3), bool)), "truth must hold 2 finite answers"),
    # these would load as something else than the file says, so that its commitment would change
    "part as fraction": (set_in("calibration_models", "parts", 0, to=0.5), "do not fit"),
    "derived as text": (set_in("calibration_models", "derived", 0, to="no"), "do not fit"),
    "member part as fraction": (set_in("verifier", 0, "part", to=0.5), "do not fit"),
    "missing member part": (drop("verifier", 0, "part"), "do not fit"),
    "check as number": (set_in("check", to=3), "do not fit"),
    # these would load, and no verdict could be given
    "none derived": (set_in("calibration_models", "derived", to=[False] * 56), "do not fit"),
    "none independent": (set_in("calibration_models", "derived", to=[True] * 54 + [False] * 2), "do not fit"),
    "truth of fewer outputs": (tensor("queries.truth", np.zeros((2, 2))), "do not fit"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_parts_that_do_not_fit_are_refused_even_with_a_valid_commitment(name, saved):
    change, message = FORGERIES[name]
    rewrite(saved, change)
    with pytest.raises(ArtefactError, match=message):
        load(saved)


@pytest.mark.parametrize("truth", [[0, 3], [-1, 0]])
def test_true_classes_that_there_are_not_are_refused(truth, path):
    handmade(view="relative").save(path)
    rewrite(path, tensor("queries.truth", np.array(truth)))
    with pytest.raises(ArtefactError, match="do not fit"):
        load(path)


@pytest.mark.parametrize(("key", "value"), [("salt", "x"), ("commitment", None), ("salt", "A" * 64)])
def test_salt_and_commitment_must_be_digests(key, value, saved):
    document, tensors = read_file(saved)
    write_file(saved, document | {key: value}, tensors)
    with pytest.raises(ArtefactError, match="no valid salt and commitment, expected 64 hexadecimal digits"):
        load(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "unreadable metav.json"),
        (b"\xff", "unreadable metav.json"),
        (b'{"format":"metav","format_version":1,"x":NaN}', "unreadable metav.json"),
        (b'{"format":"metav","format_version":1,"x":1e999}', "unreadable metav.json"),
        (b"[" * 100_000, "unreadable metav.json"),
        (b"[]", "of another kind"),
        (b'{"format": "metav","format_version":1}', "not canonical JSON"),
        (b'{"format":"metav","format_version":1,"format_version":1}', "not canonical JSON"),
    ],
)
def test_a_document_that_metav_would_not_write_is_refused(text, message, saved):
    rezip(saved, {**members_of(saved), DOCUMENT: text})
    with pytest.raises(ArtefactError, match=message):
        load(saved)


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 64, (10).to_bytes(8, "little") + b'{"a": [1]}'])
def test_tensors_that_cannot_be_read_are_refused(content, saved):
    rezip(saved, {**members_of(saved), TENSORS: content})
    with pytest.raises(ArtefactError, match=r"unreadable tensors|was altered"):
        load(saved)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "random.metav"
    path.write_bytes(raw)
    with pytest.raises(ArtefactError, match=r"random\.metav"):
        load(path)


def test_load_is_public(saved):
    assert metav.load(str(saved)).commitment == handmade().commitment
