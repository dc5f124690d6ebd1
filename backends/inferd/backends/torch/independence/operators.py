"""All operators that the analysis knows, and those that it refuses on purpose."""

from __future__ import annotations

from inferd.backends.torch.independence import along, elementwise, indexing, layout, products, windows
from inferd.backends.torch.independence.call import AtenTable, Entry

TABLES: tuple[AtenTable, ...] = (
    elementwise.TABLE,
    along.TABLE,
    products.TABLE,
    windows.TABLE,
    layout.TABLE,
    indexing.TABLE,
)

_RANGE = "quantises by the range of the whole batch"
_LISTS = "lists positions in the whole batch"
_RANDOM = "is random"
_MEMORY = "holds memory as it happens to be"
_RANDOM_NAMES = """
    rand randn randint randperm rand_like randn_like randint_like bernoulli multinomial normal uniform poisson
    exponential cauchy geometric log_normal random binomial _standard_gamma
"""
_VIEWS = """
    dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout type_as _cast_Float _cast_Double
    _cast_Half _cast_Long _cast_Int meshgrid broadcast_tensors unsafe_chunk unsafe_split unsafe_split_with_sizes
    _unsafe_view dequantize pad repeat_interleave tile repeat channel_shuffle
"""
_HIDDEN_WRITES = """
    batch_norm instance_norm native_batch_norm _batch_norm_impl_index cudnn_batch_norm miopen_batch_norm
    _batch_norm_with_update embedding_renorm
"""
_CHECKS = """
    _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar
    sym_constrain_range sym_constrain_range_for_size _functional_sym_constrain_range
    _functional_sym_constrain_range_for_size _print warn
"""
MIXING = {
    "quantize_per_tensor_dynamic": _RANGE,
    "_choose_qparams_per_tensor": _RANGE,
    "choose_qparams_optimized": _RANGE,
    "quantized::linear_dynamic": _RANGE,
    "quantized::linear_relu_dynamic": _RANGE,
    "quantized_decomposed::choose_qparams": _RANGE,
    "quantized_decomposed::choose_qparams_symmetric": _RANGE,
    "quantized::quantized_lstm_dynamic": _RANGE,
    "quantized_lstm": _RANGE,
    "quantized_gru": _RANGE,
    "nonzero": _LISTS,
    "nonzero_numpy": _LISTS,
    "argwhere": _LISTS,
    "masked_select": "lists the elements for which a condition holds",
    "masked_scatter": "writes a list of values where a condition holds",
    "unique": "lists the values of the whole batch",
    "_unique": "lists the values of the whole batch",
    "_unique2": "lists the values of the whole batch",
    "unique_dim": "lists the values of the whole batch",
    "unique_consecutive": "lists the values of the whole batch",
    "bincount": "counts values of the whole batch",
    "histc": "counts values of the whole batch",
    "embedding_bag": "sums between offsets into the whole batch",
    "_embedding_bag": "sums between offsets into the whole batch",
    "take": "picks from all elements of the batch",
    "put": "writes to the elements of the whole batch",
    "msort": "sorts over the batch axis",
    "as_strided": "reads memory by distances, across rows",
    "as_strided_copy": "reads memory by distances, across rows",
    "as_strided_scatter": "writes memory by distances, across rows",
    "set": "replaces memory",
    "resize": "replaces memory",
    "resize_as": "replaces memory",
    "empty": _MEMORY,
    "empty_like": _MEMORY,
    "empty_strided": _MEMORY,
    "new_empty": _MEMORY,
    "new_empty_strided": _MEMORY,
    "cov": "sums over the batch axis",
    "corrcoef": "sums over the batch axis",
    "pdist": "compares rows with other rows",
    "addbmm": "sums over the batch axis",
    "addr": "multiplies rows with other rows",
    "_pack_padded_sequence": "sorts the sequences of the batch by length",
    "_pad_packed_sequence": "makes all rows as wide as the longest",
    "pad_sequence": "makes all rows as wide as the longest",
    "_nested_tensor_from_mask": "is as wide as the longest row",
    **dict.fromkeys(_RANDOM_NAMES.split(), _RANDOM),
}

# Operators that return an argument, or a view of one, in some cases, though their schemas do not say so.
VIEWS = frozenset(_VIEWS.split())

# Operators that write into arguments in training mode, though their schemas do not say so.
HIDDEN_WRITES = frozenset(_HIDDEN_WRITES.split())

# Checks, which stop a run or do nothing.
CHECKS = frozenset(_CHECKS.split())


def entry(operator: str) -> Entry | None:
    """The entry of an operator, None if it is not understood."""
    for table in TABLES:
        found = table.get(operator)
        if found is not None:
            return found
    return None
