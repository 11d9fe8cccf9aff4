"""A server of Qdrant's REST over its client's local mode: requests over HTTP, read as the API defines them."""

import json
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

from qdrant_client import QdrantClient, models


def serve() -> HTTPServer:
    """Not started yet; `server.qdrant` is what it answers by."""
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    server.qdrant = QdrantClient(":memory:")
    return server


class _Handler(BaseHTTPRequestHandler):
    paths: ClassVar = {"": "collection", "/exists": "exists", "/points": "upsert", "/points/delete": "delete"}
    paths |= {"/points/scroll": "scroll", "/points/query": "query"}

    def answer(self):
        name, rest = re.fullmatch(r"/collections/([\w.-]+)([\w/]*)(?:\?.*)?", self.path).groups()
        size = int(self.headers.get("content-length") or 0)
        assert size < 32 << 20, "a server takes 32 MB"
        body = json.loads(self.rfile.read(size)) if size else {}
        result = getattr(self, self.paths[rest])(self.server.qdrant, name, body)
        content = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_PATCH = answer

    def exists(self, qdrant, name, body):
        return {"exists": qdrant.collection_exists(name)}

    def collection(self, qdrant, name, body):
        if self.command == "PUT":
            asked = models.CreateCollection(**body)
            return qdrant.create_collection(name, vectors_config=asked.vectors, metadata=asked.metadata)
        if self.command == "PATCH":
            return qdrant.update_collection(name, metadata=models.UpdateCollection(**body).metadata)
        return qdrant.get_collection(name).model_dump(mode="json")

    def upsert(self, qdrant, name, body):
        return qdrant.upsert(name, models.PointsList(**body).points).model_dump(mode="json")

    def delete(self, qdrant, name, body):
        return qdrant.delete(name, models.PointIdsList(**body)).model_dump(mode="json")

    def scroll(self, qdrant, name, body):
        asked = models.ScrollRequest(**body)
        records, after = qdrant.scroll(
            name, limit=asked.limit, offset=asked.offset, with_payload=asked.with_payload, with_vectors=False
        )
        return {"points": [record.model_dump(mode="json") for record in records], "next_page_offset": after}

    def query(self, qdrant, name, body):
        asked = models.QueryRequest(**body)
        found = qdrant.query_points(
            name,
            query=asked.query,
            using=asked.using,
            prefetch=asked.prefetch,
            query_filter=asked.filter,
            search_params=asked.params,
            limit=asked.limit,
            with_payload=asked.with_payload,
        )
        return found.model_dump(mode="json")

    def log_message(self, *_):
        pass
