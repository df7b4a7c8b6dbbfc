"""`camdock doctor`: what is wrong on this machine, in words, with the command that mends it.

Runs in: a process of its own, which touches nothing that may block: whatever reads a device, a folder or a driver is an
errand in a child process with a deadline. Each module has, for its noun, the errands (`errand.py` lists them) and what
is made of their answers.
"""
