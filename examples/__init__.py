"""What stands around the service so that it can be shown and tested: a sample platform and a local stack."""
