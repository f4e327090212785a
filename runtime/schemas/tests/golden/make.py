"""Writes records.json: records that Confluent's Python client has written, and the registry that they need.

Run with its folder as the working directory, in an environment with `confluent-kafka[avro,protobuf,json]` 2.16 and
`grpcio-tools` (for protoc). The tests of this room read what it wrote; nothing else does.
"""

import datetime
import decimal
import importlib
import json
import pathlib
import sys
import tempfile
import uuid

from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from grpc_tools import protoc

client = SchemaRegistryClient.new_client({"url": "mock://golden"})
records = []


def add(name, format, serializer, message, expected):
    headers = []
    context = SerializationContext(name, MessageField.VALUE, headers)
    value = serializer(message, context)
    records.append(
        {
            "name": name,
            "format": format,
            "value": value.hex(),
            "headers": {key: header.hex() for key, header in headers},
            "expected": expected,
        }
    )


CUSTOMER = {
    "type": "record",
    "name": "Customer",
    "namespace": "org.example",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "country", "type": {"type": "enum", "name": "Country", "symbols": ["DE", "FR"]}},
    ],
}
client.register_schema("customer", Schema(json.dumps(CUSTOMER), "AVRO"))
ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "org.example.orders",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "small", "type": "int"},
        {"name": "paid", "type": "boolean"},
        {"name": "weight", "type": "float"},
        {"name": "total", "type": "double"},
        {"name": "nothing", "type": "null"},
        {"name": "customer", "type": "org.example.Customer"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "other", "type": ["null", "string", "long"]},
        {"name": "lines", "type": {"type": "array", "items": {
            "type": "record", "name": "Line", "fields": [
                {"name": "sku", "type": "string"}, {"name": "count", "type": "int"}]}}},
        {"name": "labels", "type": {"type": "map", "values": "long"}},
        {"name": "raw", "type": "bytes"},
        {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 4}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
        {"name": "exact", "type": {
            "type": "fixed", "name": "Exact", "size": 8, "logicalType": "decimal", "precision": 12, "scale": 3}},
        {"name": "key", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "precise", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "time", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "parent", "type": ["null", "Order"]},
    ],
}
at = datetime.datetime(2026, 2, 28, 12, 30, 0, 250000, tzinfo=datetime.timezone.utc)
order = {
    "id": -(2**53) - 1,
    "small": -7,
    "paid": True,
    "weight": 0.5,
    "total": 12.25,
    "nothing": None,
    "customer": {"name": "Ada Lovelace", "country": "FR"},
    "note": "grüße",
    "other": 7,
    "lines": [{"sku": "a", "count": 1}, {"sku": "b", "count": 200}],
    "labels": {"x": 1, "y": -1},
    "raw": b"\x00\xff",
    "digest": b"\x01\x02\x03\x04",
    "price": decimal.Decimal("-12345678901234567.89"),
    "exact": decimal.Decimal("0.125"),
    "key": uuid.UUID("00010203-0405-0607-0809-0a0b0c0d0e0f"),
    "day": at.date(),
    "at": at,
    "precise": at,
    "time": at.time(),
    "parent": None,
}
shown = {
    **order,
    "raw": [0, 255],
    "digest": [1, 2, 3, 4],
    "price": "-12345678901234567.89",
    "exact": "0.125",
    "key": "00010203-0405-0607-0809-0a0b0c0d0e0f",
    "day": "2026-02-28",
    "at": "2026-02-28T12:30:00.25Z",
    "precise": "2026-02-28T12:30:00.25Z",
    "time": "12:30:00.25",
}
order_schema = Schema(json.dumps(ORDER), "AVRO", [SchemaReference("org.example.Customer", "customer", 1)])
avro = AvroSerializer(client, order_schema)
add("avro", "avro", avro, order, shown)
add("avro within itself", "avro", avro, {**order, "parent": order}, {**shown, "parent": shown})
add(
    "avro by header",
    "avro",
    AvroSerializer(client, order_schema, conf={"schema.id.serializer": header_schema_id_serializer}),
    order,
    shown,
)
add("avro primitive", "avro", AvroSerializer(client, '"string"'), "word", "word")

MONEY = """
syntax = "proto3";
package golden;
message Money { string currency = 1; int64 units = 2; }
"""
SALE = """
syntax = "proto3";
package golden;
import "golden/money.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";
enum State { STATE_UNKNOWN = 0; STATE_PAID = 1; }
message Other { string x = 1; }
message Sale {
  map<string, int32> first = 1;
  message Part { string sku = 1; uint64 count = 2; }
  string order_id = 2;
  optional string note = 3;
  optional string absent = 4;
  int32 zero = 5;
  Money price = 6;
  Money no_price = 7;
  repeated Part parts = 8;
  repeated double numbers = 9;
  State state = 10;
  State strange = 11;
  bytes raw = 12;
  oneof choice { string text = 13; int64 number = 14; }
  google.protobuf.Timestamp at = 15;
  google.protobuf.Duration took = 16;
  google.protobuf.Struct extra = 17;
  google.protobuf.Int64Value wrapped = 18;
  map<int64, Part> by_number = 19;
  sint64 negative = 20;
  fixed64 fixed = 21;
  float half = 22;
  bool yes = 23;
}
"""
with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    (root / "golden").mkdir()
    (root / "golden" / "money.proto").write_text(MONEY)
    (root / "golden" / "sale.proto").write_text(SALE)
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{root}", f"-I{include}", f"--python_out={root}"]
    assert protoc.main([*arguments, "golden/money.proto", "golden/sale.proto"]) == 0
    sys.path.insert(0, folder)
    sale_pb2 = importlib.import_module("golden.sale_pb2")
    money_pb2 = importlib.import_module("golden.money_pb2")

sale = sale_pb2.Sale(
    order_id="o-1",
    note="",
    price=money_pb2.Money(currency="EUR", units=2**53 + 1),
    parts=[sale_pb2.Sale.Part(sku="a", count=1), sale_pb2.Sale.Part(sku="b")],
    numbers=[0.5, 2],
    state=sale_pb2.STATE_PAID,
    strange=7,
    raw=b"\x00\xff",
    number=0,
    negative=-3,
    fixed=9,
    half=0.5,
    yes=True,
)
sale.first["a"] = 1
sale.by_number[-2].sku = "c"
sale.at.FromDatetime(at)
sale.took.FromMilliseconds(-1500)
sale.extra.update({"a": [1, 0.5, None, {"b": True}], "c": "d"})
sale.wrapped.value = 12
add("protobuf", "protobuf", ProtobufSerializer(sale_pb2.Sale, client), sale, {
    "first": {"a": 1},
    "order_id": "o-1",
    "note": "",
    "zero": 0,
    "price": {"currency": "EUR", "units": 2**53 + 1},
    "parts": [{"sku": "a", "count": 1}, {"sku": "b", "count": 0}],
    "numbers": [0.5, 2.0],
    "state": "STATE_PAID",
    "strange": 7,
    "raw": [0, 255],
    "number": 0,
    "at": "2026-02-28T12:30:00.25Z",
    "took": "-1.5s",
    "extra": {"a": [1, 0.5, None, {"b": True}], "c": "d"},
    "wrapped": 12,
    "by_number": {"-2": {"sku": "c", "count": 0}},
    "negative": -3,
    "fixed": 9,
    "half": 0.5,
    "yes": True,
})
part = sale_pb2.Sale.Part(sku="z", count=3)
nested = ProtobufSerializer(sale_pb2.Sale.Part, client)
add("protobuf nested", "protobuf", nested, part, {"sku": "z", "count": 3})
by_header = ProtobufSerializer(
    sale_pb2.Sale.Part, client, conf={"schema.id.serializer": header_schema_id_serializer}
)
add("protobuf by header", "protobuf", by_header, part, {"sku": "z", "count": 3})

PERSON = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "$id": "https://example.org/person.json",
    "title": "Person",
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "home": {"$ref": "https://example.org/address.json"}},
}
ADDRESS = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "$id": "https://example.org/address.json",
    "title": "Address",
    "type": "object",
    "required": ["street"],
    "properties": {"street": {"type": "string"}},
}
client.register_schema("address", Schema(json.dumps(ADDRESS), "JSON"))
person = Schema(json.dumps(PERSON), "JSON", [SchemaReference("https://example.org/address.json", "address", 1)])
someone = {"name": "Ada", "home": {"street": "x"}}
add("json", "json-schema", JSONSerializer(person, client), someone, someone)

known = {"ids": {}, "guids": {}, "subjects": {}}


def told(subject, schema):
    text = schema.schema_str
    if schema.schema_type == "PROTOBUF":
        # The client registers descriptors; a real registry gives them out as text.
        text = MONEY if "money" in subject else SALE
    shape = {"schema": text}
    if schema.schema_type != "AVRO":
        shape["schemaType"] = schema.schema_type
    if schema.references:
        shape["references"] = [
            {"name": one.name, "subject": one.subject, "version": one.version} for one in schema.references
        ]
    return shape


for subject in client.get_subjects():
    for version in client.get_versions(subject):
        found = client.get_version(subject, version)
        known["subjects"][f"{subject}/{version}"] = told(subject, found.schema)
        known["ids"][str(found.schema_id)] = told(subject, found.schema)
        if found.guid:
            known["guids"][found.guid] = told(subject, found.schema)
pathlib.Path("records.json").write_text(json.dumps({"registry": known, "records": records}, indent=1) + "\n")
