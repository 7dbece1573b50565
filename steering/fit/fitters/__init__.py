"""The fitting methods: each a pure function from two sets of activations to a `Direction`."""
