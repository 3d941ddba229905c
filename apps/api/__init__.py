"""The face for machines: the REST API, and OAuth 2.0 for programs of others."""
