"""Batch client: sends images to a running server and writes a CSV file; the program behind ``scripts/predict``.

    run       the program: from the options to the exit status
    options   the command line
    pictures  listing image files
    server    the HTTP client: connections, options, retries
    table     the CSV file: completed rows, row format
    progress  progress bar and summary
    errors    exceptions

It needs only Python 3.9 or newer and its standard library, and imports relatively, so that the folder can be
copied anywhere. User documentation: ``docs/clients.md``.
"""
