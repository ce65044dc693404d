"""Gunicorn: the master, its workers, their answers and addresses, made to fit."""
