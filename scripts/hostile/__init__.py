"""Hostile input at scale, against a server of its own: the worst of clients, attackers and operators.

__main__     what is asked for, the server, the phases, the table
trial        a run: its server, clock and seed; what was sent and what went wrong
wire         one request over a socket, and the answers that came
judge        what an answer may be
good         polite clients beside everything else, in a process of their own
gauges       what the server's processes hold: memory, descriptors, threads, temporary files
loglines     whether each line of the logs is one short JSON object
report       the table

The phases:
decoding     mutated pictures, decoded in processes of their own
images       the same through the server, on every route that takes pictures
bodies       forms, JSON, base64, tensors, compressed bodies; odd_json has the values, heavy the largest
rawhttp      what is no HTTP, or two kinds of it; streams and smuggling have the lists
slow         clients that drip, idle, leave or never read
disturb      kills, reloads, new versions and full queues, all at once

What they send is made from a seed:
dice         the seed
pictures, parts, bombs, mutate   files of every format, taken apart, blown up, damaged
routes       every way in which a picture comes in
"""
