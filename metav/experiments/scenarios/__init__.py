"""Who owns what: data, architectures and sizes of each experiment, one file a task and one table of them."""
