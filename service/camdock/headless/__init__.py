"""Headless: a folder that is put last on the worker's path, so that whatever is really installed comes first.

Runs in: the worker, for `picamera2:` alone.
"""
