"""How the owners of the experiments train: plain PyTorch loops, as anybody writes them, none of them metav's own."""
