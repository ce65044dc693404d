"""Gunicorn adapted: master, worker, response, listeners and exits."""
