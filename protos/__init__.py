"""The contract: `dataops/v1/*.proto` is the source, `tool` makes the stubs and checks them."""
