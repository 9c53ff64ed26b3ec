"""Sparkplug B's payload as the protobuf library's own classes, made of a table of the fields used here.

Field numbers and types: Eclipse Sparkplug 3.0, chapter 6, "Google Protocol Buffer schema" (proto2). What the
table leaves out (templates, data sets, metadata) is read past, as protobuf does with any field. The classes
live in a pool of their own, beside any other program's classes of the same name. Loaded only when a site
file asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Mapping

INT32, INT64, DOUBLE, BOOLEAN, STRING = 3, 4, 10, 11, 12  # datatypes, chapter 6.4.16
GOOD, BAD, STALE = 192, 0, 500  # what the property Quality may say, chapter 6.4.14

_PACKAGE = "org.eclipse.tahu.protobuf"
_SCALAR: Final[Mapping[str, Any]] = {
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}
# Message -> number, type, name of its fields. `*` before a type: any number. Names in _value: one of them.
_TABLE: Final[Mapping[str, str]] = {
    "PropertyValue": "1 uint32 type, 2 bool is_null, 3 uint32 int_value, 4 uint64 long_value, "
    "5 float float_value, 6 double double_value, 7 bool boolean_value, 8 string string_value",
    "PropertySet": "1 *string keys, 2 *PropertyValue values",
    "Metric": "1 string name, 2 uint64 alias, 3 uint64 timestamp, 4 uint32 datatype, 5 bool is_historical, "
    "6 bool is_transient, 7 bool is_null, 9 PropertySet properties, 10 uint32 int_value, "
    "11 uint64 long_value, 12 float float_value, 13 double double_value, 14 bool boolean_value, "
    "15 string string_value, 16 bytes bytes_value",
    "Payload": "1 uint64 timestamp, 2 *Metric metrics, 3 uint64 seq, 4 string uuid, 5 bytes body",
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package=_PACKAGE, syntax="proto2")
    payload = file.message_type.add(name="Payload")
    for name, fields in _TABLE.items():
        message = payload if name == "Payload" else payload.nested_type.add(name=name)
        one_of = "string_value" in fields
        if one_of:
            message.oneof_decl.add(name="value")
        for line in fields.split(", "):
            number, kind, field = line.split()
            made = message.field.add(name=field, number=int(number))
            many, kind = kind.startswith("*"), kind.lstrip("*")
            made.label = made.LABEL_REPEATED if many else made.LABEL_OPTIONAL
            if kind in _SCALAR:
                made.type = _SCALAR[kind]
            else:
                made.type = made.TYPE_MESSAGE
                made.type_name = f".{_PACKAGE}.Payload.{kind}"
            if one_of and field.endswith("_value"):
                made.oneof_index = 0
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())
# Classes that are made here have no type anybody could write down.
Payload: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))
Metric: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.Payload.Metric"))


def say(metric: Any, key: str, value: float | str) -> None:
    """Give `metric` the property `key`: a number as Int32, or text; in place of what it was."""
    properties = metric.properties
    keys = list(properties.keys)
    if key in keys:
        its = properties.values[keys.index(key)]
        its.Clear()
    else:
        properties.keys.append(key)
        its = properties.values.add()
    if isinstance(value, str):
        its.type, its.string_value = STRING, value
    else:
        its.type, its.int_value = INT32, int(value)
