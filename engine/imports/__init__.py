"""Import: decode, map, validate, plan, apply, report. The stages are the modules; `run` is the table of contents."""
