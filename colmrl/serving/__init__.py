"""A page to look at: a store searched from a browser, and the same as JSON."""
