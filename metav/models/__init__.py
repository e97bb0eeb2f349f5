"""Models, apart from any task: how they are run, trained, copied, identified and grouped."""
