"""The demo: a CRM and a shop export, synced into a warehouse, and a support desk that edits the
CRM's contacts, too. Small, made by us, and real work.

`platforms` writes the platforms into a folder, always with the same values; `demo.yaml` describes
them; `life` edits the CRM as its users would; `contacts` is the desk and what happens on both
sides of it.
"""
