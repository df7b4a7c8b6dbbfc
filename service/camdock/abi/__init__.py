"""Reads compiled Python modules and says which of them break with a given NumPy, without importing or running anything.

    numpys        what each NumPy release promises to compiled modules: the table to edit for a new release
    facts         what one ELF file says about the NumPy it was compiled for; elf reads its headers and tables,
                  instructions its machine code; calls, reach, refusals: whether a refusal by NumPy fails its import
    rules         facts and a NumPy release in, a verdict out
    targets       where compiled files come from; layout and environment know Python's folders, tree their files,
                  wheel, image and docker what is packed
    closure       which libraries a module is judged together with; owners: whose package it is
    check         the verdict of every module of a target; findings: what is wrong with the target as a whole
    report        a check as a table, JSON, SARIF, JUnit; checking and allowed: the command, and what it accepts
    fixes         what to type to mend a verdict
    explain       a traceback or a log in, the failure and its fix out; logs, tracebacks read it, messages is the table
    plan, upgrade wheels of a constraints file judged before anything is installed; requirements reads what is asked,
                  wheels has pip choose and fetch them for other Pythons and machines

Runs in: any process, and where NumPy and the service's libraries are broken or absent. Imports nothing else of Camdock.
"""
