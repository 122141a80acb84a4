"""Keys, and later TLS, identity and roles."""
