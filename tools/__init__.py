"""Commands that keep generated files true; not part of the distribution."""
