"""A descriptor pool for reflection, in which the messages of other protocols have their real names.

The generated code has these messages in packages of inferd, because the original definitions may be imported into the
same process and a pool cannot hold both. This pool is separate from the default one, so the real names are free here.
"""

from __future__ import annotations

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inferd.oip.v1 import grpc_inference_service_pb2
from inferd.tfs.v1 import model_service_pb2 as tfs_models_pb2
from inferd.v1 import model_service_pb2, predict_service_pb2

_ROOTS = (
    predict_service_pb2.DESCRIPTOR,
    model_service_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
    grpc_inference_service_pb2.DESCRIPTOR,
    tfs_models_pb2.DESCRIPTOR,
)
# The real package of the messages, by the beginning of the file's name; TensorFlow has several packages.
_PACKAGES = {
    "inferd/oip/v1/": "inference",
    "inferd/tfs/v1/tensor.proto": "tensorflow",
    "inferd/tfs/v1/signature.proto": "tensorflow",
    "inferd/tfs/v1/example.proto": "tensorflow",
    "inferd/tfs/v1/error_codes.proto": "tensorflow.error",
    "inferd/tfs/v1/": "tensorflow.serving",
}


def real_names() -> DescriptorPool:
    """A pool with every service of the server, each under its real name."""
    files: dict[str, FileDescriptorProto] = {}
    for root in _ROOTS:
        _collect(root, files)
    names = {}
    for file in files.values():
        package = _package(file.name)
        if package is not None:
            for message in file.message_type:
                names[f".{file.package}.{message.name}"] = f".{package}.{message.name}"
            for enum in file.enum_type:
                names[f".{file.package}.{enum.name}"] = f".{package}.{enum.name}"
    pool = DescriptorPool()
    pool.Add(_reflection_v1(files[reflection_pb2.DESCRIPTOR.name]))
    for file in files.values():
        for message in file.message_type:
            _rename(message, names)
        for service in file.service:
            for method in service.method:
                method.input_type = names.get(method.input_type, method.input_type)
                method.output_type = names.get(method.output_type, method.output_type)
        file.package = _package(file.name) or file.package
        pool.Add(file)
    return pool


def _reflection_v1(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """The file of reflection v1, which grpcio-reflection does not have: v1alpha's messages under another package."""
    old, new = f".{alpha.package}.", ".grpc.reflection.v1."
    file = FileDescriptorProto.FromString(alpha.SerializeToString())
    file.name, file.package = "grpc/reflection/v1/reflection.proto", "grpc.reflection.v1"
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, new)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(old, new)
        method.output_type = method.output_type.replace(old, new)
    return file


def _collect(file: FileDescriptor, files: dict[str, FileDescriptorProto]) -> None:
    """Adds the file and everything it imports to `files`, imports first."""
    if file.name in files:
        return
    for imported in file.dependencies:
        _collect(imported, files)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    files[file.name] = proto


def _package(file: str) -> str | None:
    return next((package for beginning, package in _PACKAGES.items() if file.startswith(beginning)), None)


def _rename(message: DescriptorProto, names: dict[str, str]) -> None:
    for field in message.field:
        if field.type_name:
            field.type_name = _renamed(field.type_name, names)
    for nested in message.nested_type:
        _rename(nested, names)


def _renamed(name: str, names: dict[str, str]) -> str:
    # The full name of a nested message begins with the name of the outermost one.
    for old, new in names.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name
