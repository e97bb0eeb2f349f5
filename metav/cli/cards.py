"""What results look like for people, on stderr."""

from __future__ import annotations

from collections.abc import Mapping

from metav.fingerprints.fingerprint import Fingerprint
from metav.verdicts.verdict import listed_names


def fingerprint_card(fp: Fingerprint) -> str:
    """Return what a fingerprint is, for people."""
    rule, zoo, shape = fp.calibration, fp.zoo, "x".join(map(str, fp.task.input_shape))
    rows = {
        "task": f"{fp.task.name}, inputs of {shape}, {fp.task.outputs} outputs, read as {fp.task.view}",
        **({"classes": listed_names(fp.task.class_names)} if fp.task.class_names else {}),
        "queries": f"{len(fp.queries)}, {fp.adaptive} of them adaptive",
        "verifier": fp.meta_verifier.summary,
        "surrogates": f"{_count(zoo.get('positives'))} derived, {_count(zoo.get('negatives'))} independent"
        + _free_negatives(zoo.get("free")),
        "owner": f"{fp.task.metric_name} {_number(zoo.get('owner_metric'))}; {_own_verdict(fp)}",
        "wanted": f"false-positive rate {rule.target_fpr:g}",
        "false positives": f"{rule.false_positives} in calibration",
        "true positives": f"{rule.true_positives} in calibration",
        **_without_recipe(fp),
        "made with": ", ".join(f"{name} {version}" for name, version in sorted(fp.versions.items())),
        "seed": str(fp.seed),
        "commitment": fp.commitment,
    }
    width = max(map(len, rows))
    return "\n".join(["Fingerprint", *(f"  {name.ljust(width)}  {text}" for name, text in rows.items())])


def _count(value: object) -> str:
    return str(value) if type(value) is int else "an unknown number of"


def _free_negatives(free: object) -> str:
    """Return how many negatives there are that nobody trained, as a zoo tells it."""
    models = free.get("models") if isinstance(free, Mapping) else None
    return f", {models} free negatives" if type(models) is int and models else ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not known"


def _without_recipe(fp: Fingerprint) -> dict[str, str]:
    """Return what a fingerprint that was told no recipe leaves undecided."""
    beyond = fp.check.get("beyond_kin")
    if not isinstance(beyond, Mapping):
        return {}
    found = f"{_count(beyond.get('count'))} of {_count(beyond.get('total'))} derived calibration models match"
    return {"recipe": f"not told: {found}, others are INCONCLUSIVE"}


def _own_verdict(fp: Fingerprint) -> str:
    if not fp.check:
        return "not tried on itself"
    verb = "matches" if fp.check["owner_matches"] else "DOES NOT MATCH"
    return f"{verb}, score {fp.check['owner_score']:.3f}"
