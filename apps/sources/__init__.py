"""Sources, datasets, fields, credentials, discovery, drift."""
