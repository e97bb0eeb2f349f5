"""From a zoo to queries and verifier: joint optimisation, choice among candidates, and final training.

query: an input that a suspect is asked about; natural ones come from the task, optimised ones are changed by gradients.
member: one of the verifiers whose weighted sum judges a suspect (`metav.verifiers`).
share: which part a model of the zoo plays, "optimize", "select" or "calibrate" (`metav.zoo`).
"""
