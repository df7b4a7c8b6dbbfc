"""Camdock: a camera service that streams, captures and recovers.

Runs in: every process. Owns the version and nothing else.
"""

__version__ = "0.1.0"
