"""The local stack: embedded PostgreSQL and Valkey, certificates, tokens, server and worker processes."""
