"""What a gallery is in Milvus: its collections and their fields, rows as entities, filters as expressions."""

import json
import re
from typing import Any, Dict, List

import numpy as np

from ..errors import ConfigError, DataError
from .filters import Filter
from .rows import COLUMNS, Rows, empty_rows

FIELDS = ("id", "path", "pid", "camid", "view", "time", "extra")
_TEXT_BYTES = {"path": 4096, "view": 256}  # at most
_SCALARS = {"paths": "path", "pids": "pid", "camids": "camid", "views": "view", "times": "time"}


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


def check_texts(rows: Rows) -> None:
    """Refuse texts that are too long for their fields.

    Raises:
        DataError: names the longest.
    """
    for name, most in _TEXT_BYTES.items():
        texts = rows.columns[f"{name}s"].tolist()
        longest = max(texts, key=lambda text: len(text.encode()), default="")
        if len(longest.encode()) > most:
            raise DataError(f"{name} {longest[:60]!r}... has more than {most} bytes; Milvus keeps no more.")


def to_entities(rows: Rows, start: int, stop: int) -> List[Dict[str, Any]]:
    """Some rows as Milvus takes them; text columns that have no field of their own go into "extra"."""
    own = [name for name in rows.columns if name not in _SCALARS]
    entities = []
    for i in range(start, min(stop, len(rows))):
        entity: Dict[str, Any] = {"id": int(rows.ids[i]), "vector": rows.vectors[i]}
        for name, field in _SCALARS.items():
            entity[field] = rows.columns[name][i].item()
        entity["time"] = None if np.isnan(entity["time"]) else entity["time"]
        entity["extra"] = {name: str(rows.columns[name][i]) for name in own}
        entities.append(entity)
    return entities


def to_rows(entities: List[Dict[str, Any]], dim: int) -> Rows:
    """Rows of what Milvus returns; without a vector, rows have vectors of no dimension."""
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
    vectors = [entity.get("vector", ()) for entity in entities]
    ids = np.array([entity["id"] for entity in entities], dtype=np.int64)
    ordered = {name: columns[name] for name in [*COLUMNS, *(n for n in columns if n not in COLUMNS)]}
    return Rows(ids, np.array(vectors, dtype=np.float32), ordered)


def meta_name(collection: str) -> str:
    """The collection of the one record that says what a gallery is."""
    return f"{collection}_meta"


def connect(uri: str, collection: str, token: str) -> Any:
    """A client of a server or file.

    Raises:
        ConfigError: pymilvus is missing, or `collection` is no name.
        DataError: nothing answers there.
    """
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


def create_collection(client: Any, name: str, dim: int) -> None:
    """The collection of a gallery's rows, of `dim` dimensions."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    for field in ("pid", "camid"):
        schema.add_field(field, DataType.INT64)
    for field, length in _TEXT_BYTES.items():
        schema.add_field(field, DataType.VARCHAR, max_length=length)
    schema.add_field("time", DataType.DOUBLE, nullable=True)
    schema.add_field("extra", DataType.JSON)
    _create_with_index(client, name, schema, "COSINE")


def create_meta(client: Any, name: str, content: Dict[str, Any]) -> None:
    """The collection of one record, which holds `content`."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)  # a collection must have one
    schema.add_field("content", DataType.JSON)
    _create_with_index(client, name, schema, "L2")
    client.insert(name, [{"id": 0, "vector": [0.0, 0.0], "content": content}])


def _create_with_index(client: Any, name: str, schema: Any, metric: str) -> None:
    indices = client.prepare_index_params()
    indices.add_index("vector", index_type="AUTOINDEX", metric_type=metric)
    client.create_collection(name, schema=schema, index_params=indices, consistency_level="Strong")
