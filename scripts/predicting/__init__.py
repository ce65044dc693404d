"""Batch client: sends images to a running server and writes CSV or JSON lines; the program behind ``scripts/predict``.

    run       the program: from the options to the exit status
    options   the command line
    pictures  listing image files
    server    the HTTP client: connections, options, retries
    rows      the result of one image
    formats   CSV and JSON lines
    table     the output file: completed rows, recorded options
    progress  progress bar and summary
    errors    exceptions

It needs only Python 3.9 or newer and its standard library, and imports relatively, so that the folder can be
copied anywhere. User documentation: ``docs/clients.md``.
"""
