from support.rpc_fixtures import kind, serve, serve_hot, server

__all__ = ["kind", "serve", "serve_hot", "server"]
