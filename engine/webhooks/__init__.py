"""Other systems are told when jobs end: what is owed to them, how it is signed, where it may be sent, and the sending.

The order of reading: `owed` (in the transaction that ends a job), `service` (for callers), `sender` (in a worker).
"""
