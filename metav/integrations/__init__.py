"""Where models are trained: the fingerprint of what a training ships, made by the pipeline itself (see `registry`)."""
