"""The surfaces: one Flask blueprint for each dialect of HTTP. They talk to ModelServer and never import torch."""
