from inferd.oip.v1 import control_pb2 as _control_pb2
from inferd.oip.v1 import infer_pb2 as _infer_pb2
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor
