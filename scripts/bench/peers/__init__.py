"""Peers around the same network, each as its own documentation shows it, with dynamic batching on."""
