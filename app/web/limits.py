"""Limits of the size of requests' texts, and of the parts of them that answers quote.

The sizes of bodies and images are settings (``SERVING_MAX_BODY_MB``, ``SERVING_MAX_PIXELS``). These limits are
constants because ordinary clients stay far below them. They keep one request from blocking the hub or from
taking memory out of proportion.
"""

from __future__ import annotations

# Processing of bodies.
# Bodies up to here are processed on the hub, in at most 2 ms; a switch to a thread costs 0.1 ms.
INLINE_BYTES = 256 * 1024
SLICE_BYTES = 1024 * 1024  # per call of a C function that holds the GIL: 1 to 10 ms

# JSON. Punctuation is counted before anything is parsed; base64 contains none of it.
# "," "[" "{": a million pixels in nested lists, three numbers and a list each
MAX_VALUES = 4_000_000
# ":": a name costs 0.4 µs and 150 bytes; 128 examples of 150 features have as many
MAX_NAMES = 20_000
# "," in a list whose elements are looked at one by one: 60 bytes and 50 ns each.
MAX_ELEMENTS = 800_000
MAX_SCALAR_BYTES = 64 * 1024  # of anything but images and pixels: a shape, an id, options
MAX_DIMENSIONS = 8  # of a tensor; pixels have 4, and NumPy itself goes to 64
MAX_DIMENSION = 2**31  # of each dimension; more elements than a body has bytes
# characters of the id of an inference request, which the answer repeats; a UUID has 36
MAX_ID = 256
MAX_DIGITS = 19  # of a version or a length: 2**63 has as many

# Forms and options.
MAX_FIELDS = 100  # of a form beside its images
MAX_OPTION = 1000  # characters of an option's name or value; labels are the longest
# characters of X-Routing-Key that count; ids of users and sessions are shorter
MAX_ROUTING_KEY = 256

# Quotes in answers.
MAX_NAME = 255  # characters of a file's name, as file systems have it
MAX_ECHO = 100  # characters of any value that an error is about
MAX_NAMED = 10  # names that an error lists
MAX_LISTED = 8  # elements of a list up to which an error shows it
MAX_DEPTH = 3  # levels of a list or object that an error shows
# of a number that an error shows; Python refuses to print more than 4,300 digits
MAX_SHOWN_BITS = 200
MAX_DETAIL = 1000  # characters of an error's sentence
MAX_DETAIL_BYTES = 2000  # bytes of the sentence in JSON, where a character may take six
MAX_FAULT = 300  # characters of the error of one image among many
MAX_INSTANCE_BYTES = 500  # of the path that an error repeats, in JSON
MAX_ERROR_BYTES = 4000  # of an error's whole answer

# Suggestions for misspelled names: 2 µs per class and character.
MAX_GUESSED = 100  # characters of the name
MAX_GUESSES = 2000  # classes that it is compared with

# Large answers.
MAX_ROWS = 500_000  # classes × images: 32 MB of labels and scores, as large as the largest body
MAX_MAPS = 512  # heat maps in a request: four for each of 128 images, 20 ms of the hub
INLINE_ROWS = 2_000  # are written on the hub, in 3 ms at most
