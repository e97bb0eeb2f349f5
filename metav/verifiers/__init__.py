"""The meta-verifier, which judges from a model's answers to the queries whether it derives from the owner's model.

member: one of the verifiers that it consists of; each reads a part of the queries, and their weighted logits are added.
kind: how a member computes: a small neural network ("mlp"), one linear function per query ("local"), or a matched
    filter ("matched").
view: how raw answers are made comparable before a member reads them, for example as log-probabilities.
"""
