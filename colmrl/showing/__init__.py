"""One query against a store, and pictures of what was found and why."""
