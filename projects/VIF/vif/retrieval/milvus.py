"""MilvusGallery: the same gallery on Milvus, in a file of one machine or on a cluster (needs `pymilvus`).

A gallery is two collections: rows, and one record of what the gallery is (`<collection>_meta`).
"""

import json
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ..errors import ConfigError, DataError
from ..features import FeatureTable
from .base import AbstractGallery, Found
from .filters import Filter
from .rows import COLUMNS, Rows, check_new, empty_rows, make_rows, positions, provenance

FORMAT = "vif-gallery-1"
MAX_K = 16_384  # Milvus's own limit of results
_BATCH = 1_000
_FIELDS = ("id", "path", "pid", "camid", "view", "time", "extra")
_SCALARS = {"paths": "path", "pids": "pid", "camids": "camid", "views": "view", "times": "time"}
_TEXT = {"path": 4096, "view": 256}  # most bytes


class MilvusGallery(AbstractGallery):
    """A gallery that a Milvus server or file keeps; every change is kept at once.

    Searches are Milvus's: AUTOINDEX, which a server may answer approximately. One process changes a gallery
    at a time; each batch of 1,000 rows is a change of its own. A column of your own that none of the rows
    in a result has is not in it.

    Args:
        uri: "gallery.db" (a file of Milvus Lite), or "http://host:19530" of a server.
        collection: letters, digits and "_".
        token: "user:password" or an API key, where the server asks for one.

    Raises:
        ConfigError: pymilvus is missing, or `collection` is no name.
        DataError: nothing answers there, or it holds no such gallery.
    """

    def __init__(self, uri: str, collection: str = "vif", token: str = "") -> None:
        self._client = _connect(uri, collection, token)
        self._uri, self._name = uri, collection
        if not all(self._client.has_collection(name) for name in (collection, _meta(collection))):
            raise DataError(
                f"{uri} holds no gallery {collection!r}; it has {self._client.list_collections()}. "
                "Make one with `vif index`."
            )
        for name in (collection, _meta(collection)):
            self._client.load_collection(name)
        (record,) = self._client.query(_meta(collection), filter="id == 0", output_fields=["content"])
        content = record["content"]
        if content.get("format") != FORMAT:
            raise DataError(f"{uri}: {collection!r} is no gallery ({FORMAT}).")
        super().__init__(int(content["dim"]), dict(content["meta"]))

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
            DataError: there is one already, or as in `add`; then none is left.
        """
        word = provenance(table, fingerprint)
        make_rows(table, np.arange(len(table)) if ids is None else ids, times, extra)  # refused before
        client = _connect(uri, collection, token)
        names = (collection, _meta(collection))
        if any(client.has_collection(name) for name in names) and not overwrite:
            raise DataError(f"{uri} has a collection {collection!r} already; use overwrite, or another name.")
        for name in names:
            client.drop_collection(name)
        dim = max(1, table.features.shape[1])
        content = {"format": FORMAT, "dim": dim, "meta": {**table.meta, "fingerprint": word}}
        _create(client, collection, dim)
        _create_meta(client, _meta(collection), content)
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

    def rows(self, ids: Any = None) -> Rows:
        """Rows of these ids, in their order, or all in the order of their ids."""
        fields = [*_FIELDS, "vector"]
        if ids is None:
            found = _rows(self._all(fields), self.dim)
            return found.take(np.argsort(found.ids))
        wanted = np.asarray(ids).reshape(-1)
        parts = [wanted[i : i + _BATCH].tolist() for i in range(0, len(wanted), _BATCH)]
        entities = [row for part in parts for row in self._query(f"id in {json.dumps(part)}", fields)]
        found = _rows(entities, self.dim)
        return found.take(positions(found.ids, ids))

    def remove(self, ids: Any) -> None:
        """Take rows out, as every gallery does."""
        with self._writer:
            found = self.rows(ids).ids.tolist()
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
                output_fields=list(_FIELDS[1:]),
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
        return scores, slots, _rows(entities, self.dim)

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
        self._check_new(rows, replaced=self.rows(rows.ids).ids)
        self._write(rows)

    def _check_new(self, more: Rows, replaced: Optional[np.ndarray] = None) -> None:
        for name, most in _TEXT.items():
            texts = more.columns[f"{name}s"].tolist()
            longest = max(texts, key=lambda text: len(text.encode()), default="")
            if len(longest.encode()) > most:
                raise DataError(
                    f"{name} {longest[:60]!r}... has more than {most} bytes; Milvus keeps no more."
                )
        kept = set() if replaced is None else set(replaced.tolist())
        for start in range(0, len(more), _BATCH):
            part = slice(start, start + _BATCH)
            names = json.dumps(more.columns["paths"][part].tolist(), ensure_ascii=False)
            condition = f"id in {json.dumps(more.ids[part].tolist())} or path in {names}"
            found = [row for row in self._query(condition, ["id", "path"]) if row["id"] not in kept]
            ids = np.array([row["id"] for row in found], dtype=np.int64)
            check_new(more, ids, np.array([row["path"] for row in found], dtype=np.str_))

    def _write(self, rows: Rows) -> None:
        own = [name for name in rows.columns if name not in _SCALARS]
        for start in range(0, len(rows), _BATCH):
            data = []
            for i in range(start, min(start + _BATCH, len(rows))):
                row: Dict[str, Any] = {"id": int(rows.ids[i]), "vector": rows.vectors[i]}
                for name, column in _SCALARS.items():
                    row[column] = rows.columns[name][i].item()
                row["time"] = None if np.isnan(row["time"]) else row["time"]
                row["extra"] = {name: str(rows.columns[name][i]) for name in own}
                data.append(row)
            self._client.upsert(self._name, data)


def expression(where: Filter, camid: int) -> str:
    """A filter in Milvus's language, for queries of one camera."""
    terms = []
    for field, values in (("camid", where.camids), ("id", where.ids)):
        if values is not None:
            terms.append(f"{field} in {json.dumps([int(value) for value in values])}")
    if where.views is not None:
        terms.append(f"view in {json.dumps([str(view) for view in where.views], ensure_ascii=False)}")
    if where.since is not None:
        terms.append(f"time >= {float(where.since)!r}")
    if where.until is not None:
        terms.append(f"time < {float(where.until)!r}")
    if where.other_cameras:
        terms.append(f"camid != {camid}")
    return " and ".join(terms)


def _rows(entities: List[Dict[str, Any]], dim: int) -> Rows:
    """Rows of what Milvus returns; without a vector, rows have vectors of no use."""
    if not entities:
        return empty_rows(dim)
    columns: Dict[str, np.ndarray] = {}
    for name, field in _SCALARS.items():
        values = [entity[field] for entity in entities]
        if field == "time":
            values = [np.nan if value is None else value for value in values]
        columns[name] = np.array(values)
    names = dict.fromkeys(["splits", *(name for entity in entities for name in sorted(entity["extra"]))])
    for name in names:
        columns[name] = np.array([entity["extra"].get(name, "") for entity in entities])
    vectors = [entity["vector"] for entity in entities] if "vector" in entities[0] else []
    ids = np.array([entity["id"] for entity in entities], dtype=np.int64)
    ordered = {name: columns[name] for name in [*COLUMNS, *(n for n in columns if n not in COLUMNS)]}
    return Rows(ids, np.array(vectors, dtype=np.float32).reshape(-1, dim), ordered)


def _meta(collection: str) -> str:
    return f"{collection}_meta"


def _connect(uri: str, collection: str, token: str) -> Any:
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ConfigError(
            f"a gallery at {uri!r} needs pymilvus: `pip install pymilvus milvus-lite` (the extra `milvus`)."
        ) from error
    if not re.fullmatch(r"[A-Za-z_]\w{0,200}", collection, flags=re.ASCII):
        raise ConfigError(f"collection={collection!r} must be letters, digits and '_', not a digit first.")
    try:
        return MilvusClient(uri, token=token)
    except Exception as error:  # of pymilvus, grpc or Milvus Lite
        raise DataError(f"no Milvus at {uri!r} ({error}); start it, or check the address.") from error


def _create(client: Any, name: str, dim: int) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    for field in ("pid", "camid"):
        schema.add_field(field, DataType.INT64)
    for field, length in _TEXT.items():
        schema.add_field(field, DataType.VARCHAR, max_length=length)
    schema.add_field("time", DataType.DOUBLE, nullable=True)
    schema.add_field("extra", DataType.JSON)
    _create_collection(client, name, schema, "COSINE")


def _create_meta(client: Any, name: str, content: Dict[str, Any]) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)  # a collection must have one
    schema.add_field("content", DataType.JSON)
    _create_collection(client, name, schema, "L2")
    client.insert(name, [{"id": 0, "vector": [0.0, 0.0], "content": content}])


def _create_collection(client: Any, name: str, schema: Any, metric: str) -> None:
    indices = client.prepare_index_params()
    indices.add_index("vector", index_type="AUTOINDEX", metric_type=metric)
    client.create_collection(name, schema=schema, index_params=indices, consistency_level="Strong")
