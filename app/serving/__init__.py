"""The data plane: requests, batches, model threads."""
