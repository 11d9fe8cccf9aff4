"""An address is taken, the store opened, and the page served until Ctrl-C."""

import logging
import socket
from collections.abc import Callable

import uvicorn

from colmrl.errors import InputError
from colmrl.serving.app import create_app
from colmrl.serving.desk import Desk
from colmrl.serving.guard import loopback_names

log = logging.getLogger(__name__)
_LAST_WORDS_S = 3  # for what is being answered when it ends


def take(host: str, port: int) -> socket.socket:
    """An address, before anything slow is done; port 0: any that is free."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror}: give an address of this machine") from None
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen()
    except (OSError, OverflowError) as error:
        taken.close()
        said = getattr(error, "strerror", None) or error
        raise InputError(f"--port {port}, --host {host}: {said}: choose another") from None
    return taken


def url_of(host: str, taken: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{taken.getsockname()[1]}"


def serve(
    desk: Desk,
    taken: socket.socket,
    host: str,
    ready: Callable[[], None],
    begun: Callable[[uvicorn.Server], None] = lambda _: None,
) -> None:
    """Until Ctrl-C (or SIGTERM). `ready` is called when it answers; `begun` with what `should_exit` can be set on."""
    config = uvicorn.Config(
        create_app(desk, loopback_names(host)),
        log_level="warning",
        access_log=False,
        ws="none",
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_LAST_WORDS_S,
    )
    server = _Server(config, ready)
    begun(server)
    try:
        server.run(sockets=[taken])
    except KeyboardInterrupt:
        log.info("ended")
    finally:
        desk.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()
