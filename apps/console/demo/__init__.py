"""The demo: a CRM and a shop export, synced into a warehouse. Small, made by us, and real work.

`platforms` writes the three platforms into a folder, always with the same values; `demo.yaml`
describes them; `life` edits the CRM as its users would.
"""
