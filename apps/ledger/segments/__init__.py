"""The segment shelf: many changes as one sealed Parquet file. Nothing outside the ledger asks
here: `services` write it, `selectors` read both shelves."""
