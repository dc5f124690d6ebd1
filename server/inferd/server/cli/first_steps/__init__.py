"""The first steps of a new user: `inferd demo`, `inferd init` and `inferd init-signature`."""
