"""What this package relies on in Hypercorn, Quart and the libraries below; README.md says why, and what would end it.

Checked at start by service/platform/seams.py.
"""

from types import MappingProxyType

from service.platform.seams import Seam

# The versions that the tests have run with; others are a warning.
TRIED = MappingProxyType(
    {"h11": "0.16.0", "hypercorn": "0.18.0", "quart": "0.23.1", "quart-trio": "0.13.0", "wsproto": "1.3.2"}
)

_H11, _WS = "hypercorn.protocol.h11:H11Protocol", "hypercorn.protocol.ws_stream:WSStream"
_HTTP, _TCP = "hypercorn.protocol.http_stream:HTTPStream", "hypercorn.trio.tcp_server:TCPServer"
_STREAM = "self, app, config, context, task_group, ssl, client, server, send, stream_id"

SEAMS = (
    Seam("hypercorn.trio.run:TCPServer"),  # in whose place worker.py puts ours
    Seam(
        f"{_TCP}.__init__",
        "self, app, config, context, state, stream",
        sets=("app", "config", "context", "state", "stream"),
    ),
    Seam(f"{_TCP}.run", "self"),
    Seam(f"{_TCP}.protocol_send", "self, event"),
    Seam(f"{_TCP}._read_data", "self"),
    Seam(f"{_TCP}._close", "self"),
    Seam("hypercorn.trio.task_group:TaskGroup.spawn", "self, func, *args"),
    Seam("hypercorn.trio.task_group:TaskGroup.spawn_app", "self, app, config, scope, send"),
    Seam(
        f"{_H11}.__init__",
        "self, app, config, context, task_group, connection_state, ssl, client, server, send",
        sets=("can_read", "connection", "connection_state", "keep_alive_requests", "stream", "task_group"),
    ),
    Seam(f"{_H11}.initiate", "self"),
    Seam(f"{_H11}.handle", "self, event"),
    Seam(f"{_H11}.stream_send", "self, event"),
    Seam(f"{_H11}._check_protocol", "self, event"),
    Seam(f"{_H11}._close_stream", "self"),
    Seam(f"{_H11}._create_stream", "self, request"),
    Seam(f"{_H11}._send_error_response", "self, status_code"),
    Seam(f"{_H11}._send_h11_event", "self, event"),
    Seam("hypercorn.protocol.h11:H11WSConnection", "h11_connection"),
    Seam("wsproto.connection:Connection", sets=("_proto",)),
    Seam("wsproto.frame_protocol:FrameProtocol", sets=("_parse_more",)),
    Seam("h11:Connection.__init__", sets=("_receive_buffer",)),
    Seam("h11:Connection._process_error", "self, role"),
    Seam("h11._readers:header_field_re"),
    Seam("h11._receivebuffer:ReceiveBuffer.maybe_extract_at_most", "self, count"),
    Seam(f"{_HTTP}.__init__", _STREAM, sets=("closed", "config", "state")),
    Seam(f"{_HTTP}.handle", "self, event", sets=("app_put", "scope", "state")),
    Seam(f"{_HTTP}.app_send", "self, message"),
    Seam(f"{_WS}.__init__", _STREAM, sets=("buffer", "closed", "config", "state")),
    Seam(f"{_WS}.handle", "self, event"),
    Seam(f"{_WS}.app_send", "self, message"),
    Seam(f"{_WS}._accept", "self, message"),
    Seam(f"{_WS}._handle_events", "self"),
    Seam(f"{_WS}._send_error_response", "self, status_code"),
    Seam(f"{_WS}._send_wsproto_event", "self, event"),
    Seam("hypercorn.config:Config.create_sockets", "self"),
    Seam("hypercorn.config:Config.response_headers", "self, protocol"),
    Seam("quart.asgi:ASGIHTTPConnection._create_request_from_scope", "self, send"),
    Seam("quart.asgi:ASGIHTTPConnection._send_response", "self, send, response"),
    Seam("quart.asgi:ASGIWebsocketConnection._create_websocket_from_scope", "self, send"),
    Seam("werkzeug.routing.rules:Rule._compile_builder", "self, append_unknown"),
    Seam("quart.routing:QuartMap.bind_to_request", "self, request, subdomain, server_name"),
    Seam("quart.app:Quart.full_dispatch_request", "self, ctx"),
    Seam("quart.app:Quart.full_dispatch_websocket", "self, ctx"),
    Seam("quart.app:Quart.dispatch_request", "self, ctx"),
    Seam("quart.app:Quart.dispatch_websocket", "self, ctx"),
    Seam("quart.app:Quart.log_exception", "self, ctx, exception_info"),
    Seam("quart.app:Quart.handle_exception", "self, ctx, error"),
    Seam("quart.app:Quart.handle_websocket_exception", "self, ctx, error"),
    Seam("quart.app:Quart._find_error_handler", "self, e, blueprints"),
    Seam("quart.app:Quart.finalize_request", "self, ctx, result, from_error_handler"),
    Seam("quart.app:Quart.preprocess_request", "self, ctx"),
    Seam("quart.app:Quart.request_context", "self, request"),
    Seam("quart.globals:_cv_app"),
    Seam(
        "quart.ctx:AppContext.__init__",
        "self, app, request, session, websocket",
        sets=(
            "_after_request_functions",
            "_after_websocket_functions",
            "_cv_token",
            "_flashes",
            "_push_count",
            "_request",
            "_session",
            "_websocket",
            "app",
            "g",
            "url_adapter",
        ),
    ),
    Seam("quart.ctx:AppContext.push", "self", sets=("_cv_token", "_open_session", "_push_count", "match_request")),
    Seam("quart.ctx:AppContext.pop", "self, exc", sets=("_cv_token", "_push_count", "_request")),
    Seam("quart.json.provider:DefaultJSONProvider.response", "self, *args, **kwargs", sets=("_app", "compact")),
    Seam("quart_trio.app:QuartTrio.handle_request", "self, request"),
    Seam("quart_trio.app:QuartTrio.handle_websocket", "self, websocket"),
    Seam("quart_trio.app:QuartTrio.handle_user_exception", "self, ctx, error"),
    Seam("quart_trio.wrappers.request:TrioBody", "expected_content_length, max_content_length", sets=("_data",)),
    Seam(
        "quart_trio.wrappers.request:TrioBody.__init__",
        sets=("_complete", "_max_content_length", "_must_raise", "_queue"),
    ),
)
