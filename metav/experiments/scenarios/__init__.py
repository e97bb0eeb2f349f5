"""Who owns what: data, architectures and sizes of each experiment."""
