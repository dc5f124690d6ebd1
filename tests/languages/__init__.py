"""Builds and runs the clients of examples/clients in Go, Java and Node.js against a real server."""
