"""From a suspect's answers to a verdict, and from many verdicts to the error rates of a fingerprint."""
