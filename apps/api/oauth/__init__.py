"""OAuth 2.0: programs of others get in by a client of their own (RFC 6749, 7636, 9700)."""
