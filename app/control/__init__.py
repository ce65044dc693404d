"""The control plane: the repository of models, the manifest of versions to serve, and the plan of workers."""
