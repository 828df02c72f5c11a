"""MilvusGallery: the same gallery on Milvus, in a file of one machine or on a cluster (needs `pymilvus`).

A gallery is two collections: rows, and one record of what the gallery is (`<collection>_meta`).
"""

import json
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ..errors import ConfigError, DataError
from ..features import FeatureTable
from .base import AbstractGallery, Found
from .filters import Filter
from .milvus_schema import (
    FIELDS,
    check_texts,
    connect,
    create_collection,
    create_meta,
    expression,
    meta_name,
    to_entities,
    to_rows,
)
from .rows import Rows, check_new, make_rows, positions, provenance

FORMAT = "vif-gallery-1"
MAX_K = 16_384  # Milvus's own limit of results
_BATCH = 1_000


class MilvusGallery(AbstractGallery):
    """A gallery that a Milvus server or file keeps; every change is kept at once.

    Searches are Milvus's: AUTOINDEX, which is approximate. One process changes a gallery at a time, or each
    with ids and paths of its own; each batch of 1,000 rows is a change of its own. A column of your own that
    none of the rows in a result has is not in it.

    Args:
        uri: "gallery.db" (Milvus Lite), or "http://host:19530" of a server.
        collection: letters, digits and "_".
        token: "user:password" or an API key, where the server asks for one.

    Raises:
        ConfigError: pymilvus is missing, or `collection` is no name.
        DataError: nothing answers there, or it holds no such gallery.
    """

    def __init__(self, uri: str, collection: str = "vif", token: str = "") -> None:
        self._client = connect(uri, collection, token)
        self._uri, self._name = uri, collection
        if not all(self._client.has_collection(name) for name in (collection, meta_name(collection))):
            raise DataError(
                f"{uri} holds no gallery {collection!r}; it has {self._client.list_collections()}. "
                "Make one with `vif index`."
            )
        for name in (collection, meta_name(collection)):
            self._client.load_collection(name)
        records = self._client.query(meta_name(collection), filter="id == 0", output_fields=["content"])
        if not records:  # the process that made it was killed
            raise DataError(f"{uri}: the gallery {collection!r} was never finished; build it again over it.")
        content = records[0]["content"]
        if content.get("format") != FORMAT:
            raise DataError(f"{uri}: {collection!r} is no gallery ({FORMAT}).")
        super().__init__(int(content["dim"]), dict(content["meta"]))

    @classmethod
    def exists(cls, uri: str, collection: str = "vif", token: str = "") -> bool:
        """Whether a collection is there that `build` would not replace unasked; arguments as above."""
        client = connect(uri, collection, token)
        return any(client.has_collection(name) for name in (collection, meta_name(collection)))

    @classmethod
    def build(
        cls,
        uri: str,
        table: FeatureTable,
        *,
        ids: Any = None,
        times: Optional[Sequence[float]] = None,
        extra: Optional[Mapping[str, Sequence[str]]] = None,
        fingerprint: Optional[str] = None,
        collection: str = "vif",
        token: str = "",
        overwrite: bool = False,
    ) -> "MilvusGallery":
        """A new gallery of a table's rows, whose meta it keeps; arguments as in `add` and the constructor.

        Args:
            overwrite: drop a gallery of this name that is there.

        Raises:
            DataError: there is one already, or as in `add`; what is there is left alone.
        """
        word = provenance(table, fingerprint)
        # refused before anything is dropped
        check_texts(make_rows(table, np.arange(len(table)) if ids is None else ids, times, extra))
        client = connect(uri, collection, token)
        names = (collection, meta_name(collection))
        if any(client.has_collection(name) for name in names) and not overwrite:
            raise DataError(f"{uri} has a collection {collection!r} already; use overwrite, or another name.")
        for name in names:
            client.drop_collection(name)
        dim = max(1, table.features.shape[1])
        content = {"format": FORMAT, "dim": dim, "meta": {**table.meta, "fingerprint": word}}
        create_collection(client, collection, dim)
        create_meta(client, meta_name(collection), content)
        gallery = cls(uri, collection, token)
        gallery.add(table, ids=ids, times=times, extra=extra, fingerprint=word)
        return gallery

    def __len__(self) -> int:
        return int(self._query("", ["count(*)"])[0]["count(*)"])

    def __repr__(self) -> str:
        return (
            f"<MilvusGallery {self._name!r} at {self._uri}: {len(self):,} rows, {self.dim} dimensions, "
            f"weights {self.fingerprint}>"
        )

    def rows(self, ids: Any = None, vectors: bool = True) -> Rows:
        """Rows of these ids, in their order, or all in the order of their ids."""
        fields = [*FIELDS, "vector"] if vectors else list(FIELDS)
        if ids is None:
            found = to_rows(self._all(fields), self.dim)
            return found.take(np.argsort(found.ids))
        wanted = np.asarray(ids).reshape(-1)
        parts = [wanted[i : i + _BATCH].tolist() for i in range(0, len(wanted), _BATCH)]
        entities = [row for part in parts for row in self._query(f"id in {json.dumps(part)}", fields)]
        found = to_rows(entities, self.dim)
        return found.take(positions(found.ids, ids))

    def remove(self, ids: Any) -> None:
        """Take rows out, as every gallery does."""
        with self._writer:
            found = self.rows(ids, vectors=False).ids.tolist()
            for start in range(0, len(found), _BATCH):
                self._client.delete(self._name, ids=found[start : start + _BATCH])

    def save(self) -> None:
        """Ask the server to put its segments on disk; nothing is lost without it."""
        self._client.flush(self._name)

    def close(self) -> None:
        """Let go of the server or file."""
        self._client.close()

    def _snapshot(self) -> None:
        return None

    def _nearest(self, snapshot: Any, vectors: np.ndarray, k: int, where: Filter, camid: int) -> Found:
        if k > MAX_K:
            raise ConfigError(f"k={k}: Milvus returns at most {MAX_K} neighbours, the query's own included.")
        condition = expression(where, camid)
        results: List[Any] = []
        for start in range(0, len(vectors), 100):
            results += self._client.search(
                self._name,
                data=list(vectors[start : start + 100]),
                limit=k,
                filter=condition,
                anns_field="vector",
                output_fields=list(FIELDS[1:]),
            )
        hits = [sorted(result, key=lambda hit: (-hit["distance"], hit["id"])) for result in results]
        width = max([1, *map(len, hits)])
        scores = np.full((len(vectors), width), -np.inf, dtype=np.float32)
        slots = np.full((len(vectors), width), -1, dtype=np.int64)
        place: Dict[int, int] = {}
        entities: List[Dict[str, Any]] = []
        for query, result in enumerate(hits):
            for rank, hit in enumerate(result):
                if hit["id"] not in place:
                    place[hit["id"]] = len(entities)
                    entities.append({"id": hit["id"], **hit["entity"]})
                scores[query, rank], slots[query, rank] = hit["distance"], place[hit["id"]]
        return scores, slots, to_rows(entities, self.dim)

    def _query(self, condition: str, fields: List[str]) -> List[Dict[str, Any]]:
        return list(self._client.query(self._name, filter=condition, output_fields=fields))

    def _all(self, fields: List[str]) -> List[Dict[str, Any]]:
        iterator = self._client.query_iterator(self._name, batch_size=_BATCH, output_fields=fields)
        rows: List[Dict[str, Any]] = []
        while batch := iterator.next():
            rows += batch
        iterator.close()
        return rows

    def _next_id(self) -> int:
        """The largest id + 1, found by halving: Milvus has no maximum."""
        low, high = 0, 1  # the answer is in low..high
        while self._client.query(self._name, filter=f"id >= {high}", output_fields=["id"], limit=1):
            low, high = high + 1, 2 * high
        while low < high:
            middle = (low + high) // 2
            if self._client.query(self._name, filter=f"id >= {middle}", output_fields=["id"], limit=1):
                low = middle + 1
            else:
                high = middle
        return low

    def _insert(self, rows: Rows) -> None:
        self._check_new(rows)
        self._write(rows)

    def _replace(self, rows: Rows) -> None:
        self._check_new(rows, replaced=self.rows(rows.ids, vectors=False).ids)
        self._write(rows)

    def _check_new(self, more: Rows, replaced: Optional[np.ndarray] = None) -> None:
        check_texts(more)
        kept = set() if replaced is None else set(replaced.tolist())
        found: List[Dict[str, Any]] = []
        for start in range(0, len(more), _BATCH):
            part = slice(start, start + _BATCH)
            names = json.dumps(more.columns["paths"][part].tolist(), ensure_ascii=False)
            condition = f"id in {json.dumps(more.ids[part].tolist())} or path in {names}"
            found += [row for row in self._query(condition, ["id", "path"]) if row["id"] not in kept]
        ids = np.array([row["id"] for row in found], dtype=np.int64)
        check_new(more, ids, np.array([row["path"] for row in found], dtype=np.str_))

    def _write(self, rows: Rows) -> None:
        for start in range(0, len(rows), _BATCH):
            self._client.upsert(self._name, to_entities(rows, start, start + _BATCH))
