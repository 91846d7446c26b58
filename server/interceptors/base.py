"""One call through all interceptors, told once for the four arities.

grpc.aio hands an interceptor a handler, of one of four shapes, not a call. `Chain` is the one interceptor that grpc
knows; ours are written against calls:

    around(call)            entered before a byte is parsed, outermost first; left in the opposite order
    message(call, request)  each request message, parsed, before the service sees it

A streamed answer is written by us, not handed to grpc as a generator: when the client goes away the cancellation then
arrives in the task that runs the service, and every `finally` runs there, at once, instead of wherever the generator
is collected.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from engine.errors import InvalidRequest, NotBuilt, ResourceExhausted
from server.caller import CURRENT_CALL, Call
from server.interceptors.origin import context_of

MAX_MESSAGE_BYTES = 4 << 20
"""Largest request message. grpc itself is set to twice as much: what it refuses, it refuses without our details."""

Context = Any
"""grpc's servicer context; its typed form is generic over request and response, which no interceptor cares about."""


class Interceptor:
    """One concern of every call. Both hooks may raise a DataOpsError, which ends the call."""

    def around(self, call: Call, context: Context) -> AbstractAsyncContextManager[None]:
        """Entered before the request is looked at, left when the answer is made or the call has failed."""
        return nullcontext()

    def message(self, call: Call, request: Message) -> None:
        """Look at one request message."""


class Chain(grpc.aio.ServerInterceptor):
    """All interceptors, outermost first."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = tuple(interceptors)
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        method = str(handler_call_details.method)
        if (known := self._handlers.get(method)) is not None:
            return known
        inner = await continuation(handler_call_details)
        if inner is None:  # not kept: the name is the caller's invention, and there is no end of those
            return grpc.stream_unary_rpc_method_handler(self._unknown(method))
        self._handlers[method] = wrapped = self._wrap(method, inner)
        return wrapped

    def _wrap(self, method: str, inner: Any) -> Any:
        receive = self._receiver(inner.request_deserializer)
        respond = {"response_serializer": inner.response_serializer}
        if inner.request_streaming and inner.response_streaming:
            handler = self._streaming(method, inner.stream_stream, _stream_of(receive))
            return grpc.stream_stream_rpc_method_handler(handler, **respond)
        if inner.request_streaming:
            handler = self._unary(method, inner.stream_unary, _stream_of(receive))
            return grpc.stream_unary_rpc_method_handler(handler, **respond)
        if inner.response_streaming:
            handler = self._streaming(method, inner.unary_stream, _one_of(receive))
            return grpc.unary_stream_rpc_method_handler(handler, **respond)
        handler = self._unary(method, inner.unary_unary, _one_of(receive))
        return grpc.unary_unary_rpc_method_handler(handler, **respond)

    def _unary(self, method: str, serve: Any, requests: Any) -> Any:
        async def handler(raw: Any, context: Context) -> Any:
            async with self._entered(method, context) as call, requests(call, raw) as request:
                return await serve(request, context)

        return handler

    def _streaming(self, method: str, serve: Any, requests: Any) -> Any:
        async def handler(raw: Any, context: Context) -> None:
            async with (
                self._entered(method, context) as call,
                requests(call, raw) as request,
                aclosing(serve(request, context)) as answers,
            ):
                async for answer in answers:
                    await context.write(answer)

        return handler

    def _unknown(self, method: str) -> Any:
        async def handler(_raw: Any, context: Context) -> None:
            async with self._entered(method, context):
                raise NotBuilt(f"no rpc is called {method[:200]}", reason="RPC_UNKNOWN")

        return handler

    @asynccontextmanager
    async def _entered(self, method: str, context: Context) -> AsyncIterator[Call]:
        call = Call(method, context_of(method, context), started=time.monotonic())
        CURRENT_CALL.set(call)  # never reset: the task serves this call and no other
        async with AsyncExitStack() as stack:
            for interceptor in self._interceptors:
                await stack.enter_async_context(interceptor.around(call, context))
            yield call

    def _receiver(self, parse: Callable[[bytes], Message]) -> Callable[[Call, bytes], Message]:
        def receive(call: Call, raw: bytes) -> Message:
            if len(raw) > MAX_MESSAGE_BYTES:
                raise ResourceExhausted(
                    f"request message: found {len(raw):,} bytes, expected at most {MAX_MESSAGE_BYTES:,}",
                    reason="MESSAGE_TOO_LARGE",
                    metadata={"max_bytes": str(MAX_MESSAGE_BYTES)},
                )
            try:
                request = parse(raw)
            except DecodeError:
                raise InvalidRequest(
                    "request message: the bytes are no message of this rpc", reason="MALFORMED_REQUEST"
                ) from None
            for interceptor in self._interceptors:
                interceptor.message(call, request)
            return request

        return receive


def _one_of(receive: Callable[[Call, bytes], Message]) -> Any:
    @asynccontextmanager
    async def one(call: Call, raw: bytes) -> AsyncIterator[Message]:
        yield receive(call, raw)

    return one


def _stream_of(receive: Callable[[Call, bytes], Message]) -> Any:
    async def messages(call: Call, raws: AsyncIterator[bytes]) -> AsyncGenerator[Message, None]:
        async for raw in raws:
            yield receive(call, raw)

    def stream(call: Call, raws: AsyncIterator[bytes]) -> AbstractAsyncContextManager[AsyncGenerator[Message, None]]:
        return aclosing(messages(call, raws))

    return stream
