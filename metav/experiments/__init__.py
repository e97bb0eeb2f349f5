"""The paper's tasks on real data: data sets, architectures and who owns what."""
