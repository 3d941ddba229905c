"""One module per connector under test.

Each offers `MARKS`, the pytest marks that its tests carry, and `harness(folder)`, a context
manager that yields an `apps.connectors.testing.Harness` over an empty source.
"""
