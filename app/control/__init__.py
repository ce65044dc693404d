"""The control plane: what is to be served, and where."""
