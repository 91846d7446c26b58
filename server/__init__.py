"""The gRPC edge: authenticates, authorises, validates, records jobs, streams bytes and events."""
