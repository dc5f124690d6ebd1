"""The tables of a LiteRT model that inferd reads, and the numbers of operators and element types.

The names are those of the format's schema. A field that is written as `_` is not read.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from inferd.backends.litert.flatbuffer import FieldType, Schema, Unions

_TABLES = """
Model version:u32 operator_codes:[OperatorCode] subgraphs:[SubGraph] _ buffers:[Buffer] _ _ \
    signature_defs:[SignatureDef]
OperatorCode deprecated_builtin_code:i8 custom_code:str version:i32=1 builtin_code:i32
SubGraph tensors:[Tensor] inputs:[i32] outputs:[i32] operators:[Operator] name:str
Tensor shape:[i32] type:i8 buffer:u32 name:str quantization:QuantizationParameters is_variable:bool \
    sparsity:SparsityParameters shape_signature:[i32] has_rank:bool
QuantizationParameters _ _ scale:[f32] zero_point:[i64] details_type:u8 _ quantized_dimension:i32
SparsityParameters traversal_order:[i32]
Operator opcode_index:u32 inputs:[i32] outputs:[i32] builtin_options_type:u8 builtin_options:union:BuiltinOptions
Buffer data:[u8] offset:u64 size:u64
SignatureDef inputs:[TensorMap] outputs:[TensorMap] signature_key:str _ subgraph_index:u32
TensorMap name:str tensor_index:u32
Conv2DOptions padding:i8 stride_w:i32 stride_h:i32 _ dilation_w:i32=1 dilation_h:i32=1
DepthwiseConv2DOptions padding:i8 stride_w:i32 stride_h:i32 depth_multiplier:i32 _ dilation_w:i32=1 dilation_h:i32=1
Conv3DOptions padding:i8 stride_d:i32 stride_w:i32 stride_h:i32 _ dilation_d:i32=1 dilation_w:i32=1 dilation_h:i32=1
TransposeConvOptions padding:i8 stride_w:i32 stride_h:i32
Pool2DOptions padding:i8 stride_w:i32 stride_h:i32 filter_w:i32 filter_h:i32
FullyConnectedOptions _ weights_format:i8 keep_num_dims:bool
BatchMatMulOptions adj_x:bool adj_y:bool
ConcatenationOptions axis:i32 activation:i8
AddOptions activation:i8
MulOptions activation:i8
SubOptions activation:i8
DivOptions activation:i8
ReshapeOptions new_shape:[i32]
ReducerOptions keep_dims:bool
SqueezeOptions squeeze_dims:[i32]
SplitOptions num_splits:i32
SplitVOptions num_splits:i32
StridedSliceOptions begin_mask:i32 end_mask:i32 ellipsis_mask:i32 new_axis_mask:i32 shrink_axis_mask:i32 offset:bool
GatherOptions axis:i32 batch_dims:i32
OneHotOptions axis:i32
PackOptions values_count:i32 axis:i32
UnpackOptions num:i32 axis:i32
SpaceToDepthOptions block_size:i32
DepthToSpaceOptions block_size:i32
MirrorPadOptions mode:i8
CastOptions in_data_type:i8 out_data_type:i8
ShapeOptions out_type:i8
ReverseSequenceOptions seq_dim:i32 batch_dim:i32
CumsumOptions exclusive:bool reverse:bool
SequenceRNNOptions time_major:bool
UnidirectionalSequenceLSTMOptions _ _ _ time_major:bool
BidirectionalSequenceLSTMOptions _ _ _ merge_outputs:bool time_major:bool=1
CallOptions subgraph:u32
IfOptions then_subgraph_index:i32 else_subgraph_index:i32
WhileOptions cond_subgraph_index:i32 body_subgraph_index:i32
CallOnceOptions init_subgraph_index:i32
VarHandleOptions container:str shared_name:str
"""
_BUILTIN_OPTIONS = """
1 Conv2DOptions 2 DepthwiseConv2DOptions 5 Pool2DOptions 8 FullyConnectedOptions 10 ConcatenationOptions
11 AddOptions 16 CallOptions 17 ReshapeOptions 19 SpaceToDepthOptions 21 MulOptions 23 GatherOptions 27 ReducerOptions
28 SubOptions 29 DivOptions 30 SqueezeOptions
31 SequenceRNNOptions 32 StridedSliceOptions 35 SplitOptions 37 CastOptions 49 TransposeConvOptions 55 ShapeOptions
59 PackOptions 61 OneHotOptions 64 UnpackOptions 69 BidirectionalSequenceLSTMOptions
71 UnidirectionalSequenceLSTMOptions 77 MirrorPadOptions 79 SplitVOptions 87 ReverseSequenceOptions 92 IfOptions
93 WhileOptions 94 DepthToSpaceOptions 101 BatchMatMulOptions 102 CumsumOptions 103 CallOnceOptions
106 Conv3DOptions 111 VarHandleOptions
"""
# By their numbers, from 0 on.
_OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM
MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS
SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE
EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR
ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND
COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE
HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE
BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1
UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR
RIGHT_SHIFT
"""
_ELEMENT_TYPES = """
FLOAT32 FLOAT16 INT32 UINT8 INT64 STRING BOOL INT16 COMPLEX64 INT8 FLOAT64 COMPLEX128 UINT64 RESOURCE VARIANT UINT32
UINT16 INT4 BFLOAT16 INT2 UINT4 FLOAT8_E4M3FN FLOAT8_E5M2
"""


def _field(text: str) -> FieldType | None:
    if text == "_":
        return None
    name, _, kind = text.partition(":")
    vector = kind.startswith("[")
    kind, _, default = kind.strip("[]").partition("=")
    kind, _, union = kind.partition(":")
    table = union or (kind if kind[0].isupper() else "")
    return FieldType(name, "table" if table and not union else kind, vector, table, int(default or 0))


def _schema() -> Schema:
    lines = [line.split() for line in _TABLES.strip().splitlines()]
    return MappingProxyType({name: tuple(_field(text) for text in fields) for name, *fields in lines})


def _unions() -> Unions:
    words = _BUILTIN_OPTIONS.split()
    members = {int(number): name for number, name in zip(words[::2], words[1::2], strict=True)}
    return MappingProxyType({"BuiltinOptions": members})


SCHEMA: Final = _schema()
UNIONS: Final = _unions()
OPERATORS: Final = tuple(_OPERATORS.split())
ELEMENT_TYPES: Final = tuple(_ELEMENT_TYPES.split())
