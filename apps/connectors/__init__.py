"""Connectors: the code that talks to one kind of source. Pure Python, no Django.

One file (or package) per kind of source, all behind the interface of `base`.
"""
