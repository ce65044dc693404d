"""Send pictures to a running server and write its answers into a CSV file: the program behind ``scripts/predict``.

    run       the order of things
    options   the command line
    pictures  which files: those of folders, and single ones
    server    the way to the server: connections, options, trying again
    table     the CSV file: what is done already, what a row holds
    progress  how far it is, on a terminal
    errors    why a run cannot go on

It runs on machines that have nothing but Python: the standard library alone, from 3.9 on, and its own
imports are relative, so that the folder may lie anywhere. For people: ``docs/clients.md``.
"""
