"""The machine: processes, control groups, GPUs, files."""
