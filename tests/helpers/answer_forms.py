"""Answers of classifiers as users send them: models' own, generated and real, and the changes on their way."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def gaussian(queries, outputs, scale, seed=0):
    return scale * np.random.default_rng(seed).standard_normal((queries, outputs))


def trained_logits(queries, outputs, scale, seed=0):
    """Logits of a classifier that mostly knows the class."""
    random = np.random.default_rng(seed)
    logits = random.standard_normal((queries, outputs))
    logits[np.arange(queries), random.integers(outputs, size=queries)] += 3
    return scale * logits


def heavy_tailed(queries, outputs, seed=0):
    return np.random.default_rng(seed).standard_t(2, (queries, outputs))


def top(p, kept):
    return np.where(p >= np.sort(p, axis=1)[:, [-kept]], p, 0.0)


def one_hot(p):
    return np.eye(p.shape[1])[p.argmax(axis=1)]


def slightly_negative(p):
    return np.where(np.arange(p.size).reshape(p.shape) == p.size // 2, -1e-9, p)


LOSSLESS: Mapping[str, Callable] = {
    "as they are": lambda p: p,
    "percent": lambda p: 100 * p,
    "out of 255": lambda p: 255 * p,
    "one entry -1e-9": slightly_negative,
}
LOSSY: Mapping[str, Callable] = {
    "whole percent": lambda p: np.round(100 * p),
    "3 decimals": lambda p: np.round(p, 3),
    "2 decimals": lambda p: np.round(p, 2),
    "1 decimal": lambda p: np.round(p, 1),
    "one-hot": one_hot,
    "clipped to 0.01-0.99": lambda p: np.clip(p, 0.01, 0.99),
}
TOP: Mapping[str, Callable] = {"top 3": lambda p: top(p, 3), "top 1": lambda p: top(p, 1)}


@cache
def real_answers(name, model):
    """(probabilities, labels) of a scikit-learn model on rows that it was not trained on."""
    data = {"wine": load_wine, "cancer": load_breast_cancer, "iris": load_iris}[name]()
    order = np.random.default_rng(5).permutation(len(data.target))
    made = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "bayes": GaussianNB(),
        "tree": DecisionTreeClassifier(random_state=0),
        "forest": RandomForestClassifier(100, random_state=0),
    }[model]
    train, test = np.split(order, [len(order) - 60])
    made.fit(data.data[train], data.target[train])
    return made.predict_proba(data.data[test]), data.target[test]
