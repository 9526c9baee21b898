"""A lock for what parses Python.

Before 3.11.8 and 3.12.2 Python cannot parse in two threads at once: one of them gets a SystemError
(CPython's issue 106905). Exporting a network parses its source, reading .npz files their headers.
"""

from threading import Lock

PARSING = Lock()
