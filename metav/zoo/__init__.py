"""The zoo: models trained to stand for those that a suspect might be, with which a fingerprint is made and calibrated.

owner's model: the model whose copies are to be recognised.
surrogate: a model of the zoo.
derived, positive: made from the owner's model by an obfuscation, as a thief would make it.
independent, negative: trained without the owner's model.
homologous: an independent model of the owner's own architecture, trained on the owner's own data.
family: the models made in one way, such as one obfuscation, or one kind of independent training.
share: which part a surrogate plays: "optimize" (queries and verifiers are optimised on it), "select" (it decides which
    of them are kept) or "calibrate" (the decision rule is made from it). Suspects have the share "test".
free: a negative that cost no training, such as noise or a classical model; counted apart from the independent models.
snapshot: a copy of a model in the middle of its training.
"""
