"""Measurements beside a reference, in one run on one machine; nothing here is part of make test."""
