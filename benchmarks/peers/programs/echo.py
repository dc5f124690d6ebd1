"""A minimal grpc.aio server: it has no model and answers with the bytes of the request."""

from __future__ import annotations

import asyncio

import grpc


async def main() -> None:
    """Serves until it is killed."""

    async def same(request: bytes, _context: object) -> bytes:
        return request

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(same)}
    generic = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
