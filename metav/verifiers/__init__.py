"""The meta-verifier: members of the C core, each on its share of the queries, and the views they read answers by."""
