"""MACs of every operation: the table behind all counts.

Each operation is one of three kinds:

- counted: products that contract a dimension (matrix products, convolutions, attention, bilinear forms, pairwise
  distances, recurrent layers), by a formula on their shapes;
- free: known to contract nothing. Elementwise arithmetic, reductions, normalisation, pooling, interpolation, losses,
  random numbers, copies and indexing are left out, as in every published count;
- unknown: everything else, such as Fourier transforms, factorisations, sparse and quantised products, or an operator of
  somebody's own. An unknown operation makes a count partial.

Conventions: a complex product is four real ones, whereas PyTorch runs a complex convolution as three real
convolutions, which are counted as such. A distance needs one MAC for each pair and coordinate. Attention is counted in
full whatever its mask. An outer product by broadcasting is elementwise. Operations are known by their names, so that
one that a version of PyTorch lacks is no error.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from dlbench.tasks.outputs import find_nested_tensors


def operation_name(operation: Any) -> str:
    """Return the name of an operation without its overload: "mm" for PyTorch's own, "torchvision::nms" for others."""
    return str(operation._schema.name).removeprefix("aten::")


@cache
def has_mac_formula(operation: Any) -> bool:
    """Whether the table has a formula for its MACs."""
    return _name_without_inplace_suffix(operation) in _FORMULA_OF_NAME


@cache
def is_mac_free(operation: Any) -> bool:
    """Whether the operation contracts no dimension."""
    name = _name_without_inplace_suffix(operation)
    own = "::" not in name
    # Gradients of free operations are free, and the same operation on many tensors at once is, too.
    return not _FREE.isdisjoint((name, name.removesuffix("_backward").removeprefix("_foreach_"))) or (
        own and not has_mac_formula(operation) and (torch.Tag.pointwise in operation.tags or operation.is_view)
    )


@cache
def is_unknown_operation(operation: Any) -> bool:
    """Whether the operation is neither counted nor free."""
    return not has_mac_formula(operation) and not is_mac_free(operation)


def count_operation_macs(operation: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int | None:
    """Return the MACs of one call of a counted operation; None if shapes are not enough, as with sparse operands."""
    tensors = list(find_nested_tensors([args, kwargs, result]))
    if any(t.layout != torch.strided for t in tensors):
        return None
    macs = _FORMULA_OF_NAME[_name_without_inplace_suffix(operation)](*args, **kwargs, result=result)
    return macs if macs is None or not any(t.is_complex() for t in tensors) else 4 * macs


def convolution_macs(x: Sequence[int], weight: Sequence[int], out: Sequence[int], transposed: bool) -> int:
    """MACs of a convolution: each weight is used once per output position, or, transposed, once per input position.

    Args:
        x: shape (N, C, *spatial).
        weight: shape (M, C/groups, *kernel), or transposed (C, M/groups, *kernel).
        out: shape (N, M, *spatial).
    """
    positions = x if transposed else out
    # The spatial axes are the last ones, also without a batch axis.
    batch = positions[0] if len(positions) == len(weight) else 1
    return math.prod(weight) * batch * math.prod(positions[-(len(weight) - 2) :])


def _name_without_inplace_suffix(operation: Any) -> str:
    """Return the name that an operation shares with its in-place form."""
    name = operation_name(operation)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _matmul_macs(left: Tensor, *_: Any, result: Tensor, **__: Any) -> int:
    # Each element of the result is a sum over the last axis of the left operand.
    return left.shape[-1] * result.numel()


def _addbmm_macs(_: Tensor, left: Tensor, right: Tensor, **__: Any) -> int:
    return left.numel() * right.shape[-1]


def _addr_macs(*_: Any, result: Tensor, **__: Any) -> int:
    return result.numel()


def _grouped_mm_macs(left: Tensor, right: Tensor, *_: Any, result: Tensor, **__: Any) -> int:
    # For two matrices the contracted axis is divided among the groups.
    both = left.dim() == right.dim() == 2
    return left.numel() * right.shape[-1] if both else left.shape[-1] * result.numel()


def _aten_convolution_macs(x: Tensor, weight: Tensor, *args: Any, result: Tensor, **_: Any) -> int:
    transposed = args[4]  # after bias, stride, padding, dilation
    return convolution_macs(x.shape, weight.shape, result.shape, transposed)


def _convolution_backward_macs(gradient: Tensor, x: Tensor, weight: Tensor, *args: Any, **_: Any) -> int:
    transposed, output_mask = args[4], args[7]  # after bias sizes, stride, padding, dilation
    # The gradient to the input and that to the weights use each weight as often as the forward pass did.
    num_gradients: int = output_mask[0] + output_mask[1]
    return num_gradients * convolution_macs(x.shape, weight.shape, gradient.shape, transposed)


def _direct_convolution_macs(
    x: Tensor, weight: Tensor, *_: Any, result: Tensor, is_transposed: bool = False, **__: Any
) -> int:
    return convolution_macs(x.shape, weight.shape, result.shape, is_transposed)


def _deformable_convolution_backward_macs(gradient: Tensor, _: Tensor, weight: Tensor, *__: Any, **___: Any) -> int:
    # One product for the gradient of the sampled input, one for that of the weights.
    return 2 * convolution_macs(gradient.shape, weight.shape, gradient.shape, False)


def _conv_tbc_macs(x: Tensor, weight: Tensor, *_: Any, result: Tensor, **__: Any) -> int:
    return weight.numel() * result.shape[0] * result.shape[1]


def _conv_tbc_backward_macs(gradient: Tensor, _: Tensor, weight: Tensor, *__: Any, **___: Any) -> int:
    return 2 * weight.numel() * gradient.shape[0] * gradient.shape[1]


def _attention_macs(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    batch = math.prod(query.shape[:-2])
    pairs = batch * query.shape[-2] * key.shape[-2]
    return pairs * (query.shape[-1] + value.shape[-1])


def _flash_attention_macs(query: Tensor, key: Tensor, value: Tensor, *args: Any, **_: Any) -> int | None:
    """Attention of shapes (batch, position, head, size); None for sequences of unequal length (data-dependent)."""
    if any(isinstance(a, Tensor) and a.dtype in (torch.int32, torch.int64) and a.dim() == 1 for a in args):
        return None
    return _attention_macs(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))


def _trilinear_macs(
    first: Tensor,
    second: Tensor,
    third: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    summed: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """Sum over products of three factors: the first two are multiplied, and their product with the third.

    Factors are expanded along missing axes. An axis missing in the third factor is summed first, as
    in aten/src/ATen/native/Linear.cpp.
    """
    lacking = [set(expand1), set(expand2), set(expand3)]
    num_axes = first.dim() + len(lacking[0])
    sizes: dict[int, int] = {}
    for factor, lacks in zip((first, second, third), lacking, strict=True):
        sizes.update(zip((i for i in range(num_axes) if i not in lacks), factor.shape, strict=True))
    early = set(summed) & lacking[2]
    of_pair = {axis for axis in sizes if not (axis in lacking[0] and axis in lacking[1])}
    of_all = {axis for axis in sizes if axis in of_pair - early or axis not in lacking[2]}
    return math.prod(sizes[a] for a in of_pair) + math.prod(sizes[a] for a in of_all)


def _cdist_backward_macs(_: Tensor, left: Tensor, right: Tensor, *__: Any, **___: Any) -> int:
    return left.numel() * right.shape[-2]


def _pdist_backward_macs(_: Tensor, points: Tensor, __: float, distances: Tensor, **___: Any) -> int:
    return distances.numel() * points.shape[-1]


def _embedding_bag_macs(weight: Tensor, indices: Tensor, *args: Any, **_: Any) -> int:
    # Bags without weights, which are the last argument here, are only summed.
    return 0 if len(args) < 5 or args[4] is None else indices.numel() * weight.shape[-1]


def _embedding_bag_backward_macs(gradient: Tensor, indices: Tensor, *args: Any, **_: Any) -> int:
    # The weights of the bags are the only tensor of floating-point numbers behind the gradient.
    weighted = any(isinstance(a, Tensor) and a.is_floating_point() for a in args)
    return indices.numel() * gradient.shape[-1] if weighted else 0


def _embedding_bag_weights_backward_macs(gradient: Tensor, _: Tensor, indices: Tensor, *__: Any, **___: Any) -> int:
    return indices.numel() * gradient.shape[-1]


def _rnn_macs(x: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    # Each weight is used once for each element of a sequence.
    return x.numel() // x.shape[-1] * sum(w.numel() for w in weights if w.dim() == 2)


def _rnn_layer_macs(x: Tensor, *weights: Any, **_: Any) -> int:
    return _rnn_macs(x, weights[:2])


def _macs_for_two_gradients(formula: Callable[..., int | None]) -> Callable[..., int | None]:
    """The formula of a backward pass that does each product of the forward pass for two gradients."""
    return lambda *args, **kwargs: None if (macs := formula(*args, **kwargs)) is None else 2 * macs


def _formula_without_first_tensor(formula: Callable[..., int | None]) -> Callable[..., int | None]:
    """The formula for an operation with one more tensor before the operands: a summand, or the gradient."""
    return lambda _, *args, **kwargs: formula(*args, **kwargs)


_FORMULAS: dict[Callable[..., int | None], str] = {
    _matmul_macs: """
        dot vdot mv mm bmm _int_mm _scaled_mm _scaled_mm_v2 _mixed_dtypes_linear _dyn_quant_matmul_4bit mkldnn_linear
        _weight_int8pack_mm _weight_int4pack_mm _weight_int4pack_mm_for_cpu _weight_int4pack_mm_with_scales_and_zeros
        _cdist_forward _euclidean_dist _pdist_forward affine_grid_generator
    """,
    _formula_without_first_tensor(_matmul_macs): "addmv addmm baddbmm _addmm_activation",
    _addbmm_macs: "addbmm",
    _addr_macs: "addr",
    _grouped_mm_macs: "_grouped_mm _scaled_grouped_mm _scaled_grouped_mm_v2",
    _aten_convolution_macs: "convolution _convolution convolution_overrideable",
    _convolution_backward_macs: "convolution_backward",
    _direct_convolution_macs: """
        cudnn_convolution cudnn_convolution_relu cudnn_convolution_add_relu mkldnn_convolution miopen_convolution
        miopen_convolution_relu miopen_convolution_add_relu miopen_depthwise_convolution _nnpack_spatial_convolution
        _conv_depthwise2d conv_depthwise3d _slow_conv2d_forward slow_conv3d_forward slow_conv_dilated2d
        slow_conv_dilated3d torchvision::deform_conv2d
    """,
    partial(_direct_convolution_macs, is_transposed=True): """
        cudnn_convolution_transpose miopen_convolution_transpose slow_conv_transpose2d slow_conv_transpose3d
    """,
    _deformable_convolution_backward_macs: "torchvision::_deform_conv2d_backward",
    _conv_tbc_macs: "conv_tbc",
    _conv_tbc_backward_macs: "conv_tbc_backward",
    _attention_macs: """
        _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_fused_attention_overrideable
    """,
    # Two gradients for each of the two products; recomputing the scores is an implementation's choice, not counted.
    _macs_for_two_gradients(_formula_without_first_tensor(_attention_macs)): """
        _scaled_dot_product_flash_attention_backward _scaled_dot_product_efficient_attention_backward
        _scaled_dot_product_cudnn_attention_backward _scaled_dot_product_flash_attention_for_cpu_backward
        _scaled_dot_product_fused_attention_overrideable_backward
    """,
    _flash_attention_macs: "_flash_attention_forward _efficient_attention_forward",
    _macs_for_two_gradients(
        _formula_without_first_tensor(_flash_attention_macs)
    ): "_flash_attention_backward _efficient_attention_backward",
    _trilinear_macs: "_trilinear",
    _cdist_backward_macs: "_cdist_backward",
    _pdist_backward_macs: "_pdist_backward",
    _embedding_bag_macs: "_embedding_bag _embedding_bag_forward_only",
    _embedding_bag_backward_macs: "_embedding_bag_backward _embedding_bag_dense_backward",
    _embedding_bag_weights_backward_macs: "_embedding_bag_per_sample_weights_backward",
    _rnn_macs: "_cudnn_rnn miopen_rnn",
    _macs_for_two_gradients(_rnn_macs): "_cudnn_rnn_backward miopen_rnn_backward",
    _rnn_layer_macs: "mkldnn_rnn_layer",
    _macs_for_two_gradients(_rnn_layer_macs): "mkldnn_rnn_layer_backward",
}
_FORMULA_OF_NAME: dict[str, Callable[..., int | None]] = {n: f for f, names in _FORMULAS.items() for n in names.split()}

#: By name, without overload; operations of later versions are free if PyTorch tags them as elementwise or they are
#: views.
_FREE_NAMES = """
    # Elementwise arithmetic, comparisons and activations, with their gradients.
    __and__ __ilshift__ __irshift__ __ixor__ __lshift__ __or__ __rshift__ __xor__ _add_relu _conj_copy
    _conj_physical _neg_view_copy _prelu_kernel abs acos acosh add addcdiv addcmul angle asin asinh atan atan2 atanh
    bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp clamp_max
    clamp_min clip complex conj_physical copysign cos cosh deg2rad digamma div elu eq erf erfc erfinv exp exp2 expm1
    float_power floor floor_divide fmax fmin fmod frac frexp gcd ge gelu glu glu_backward_jvp glu_jvp gt hardshrink
    hardsigmoid hardswish hardtanh heaviside hypot i0 igamma igammac isfinite isin isinf isnan isneginf isposinf lcm
    ldexp le leaky_relu lerp lgamma log log10 log1p log2 log_sigmoid_backward log_sigmoid_forward logaddexp
    logaddexp2 logical_and logical_not logical_or logical_xor logit lt maximum minimum mish mul mvlgamma nan_to_num
    ne neg nextafter polar polygamma positive pow rad2deg reciprocal relu relu6 remainder round rrelu
    rrelu_with_noise rrelu_with_noise_functional rsqrt rsub selu sgn sigmoid sign signbit silu sin sinc sinh
    softplus softshrink special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1
    special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v
    special_chebyshev_polynomial_w special_entr special_erfcx special_hermite_polynomial_h
    special_hermite_polynomial_he special_i0e special_i1 special_i1e special_laguerre_polynomial_l
    special_legendre_polynomial_p special_log_ndtr special_modified_bessel_i0 special_modified_bessel_i1
    special_modified_bessel_k0 special_modified_bessel_k1 special_ndtri special_scaled_modified_bessel_k0
    special_scaled_modified_bessel_k1 special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u
    special_shifted_chebyshev_polynomial_v special_shifted_chebyshev_polynomial_w special_spherical_bessel_j0
    special_xlog1py special_zeta sqrt square sub tan tanh threshold true_divide trunc where xlogy
    # Reductions, running sums, sorting and counting: sums and comparisons without products of two operands.
    _aminmax _cummax_helper _cummin_helper _is_all_true _is_any_true _linalg_check_errors _logcumsumexp
    _segment_reduce_backward _unique _unique2 all allclose amax amin aminmax any argmax argmin bincount bucketize
    count_nonzero cummax cummin cumprod cumsum dist equal hash_tensor histc histogram _histogramdd_bin_edges
    _histogramdd_from_bin_cts _histogramdd_from_bin_tensors kthvalue linalg__powsum linalg_vector_norm logcumsumexp
    logsumexp max mean median min mode nanmedian nansum norm native_norm prod renorm searchsorted segment_reduce
    sort std std_mean sum topk trace unique_consecutive unique_dim unique_dim_consecutive var var_mean linalg_cross
    # Normalisation and softmax.
    _batch_norm_no_update _batch_norm_with_update _batch_norm_with_update_functional _fused_rms_norm _log_softmax
    _log_softmax_backward_data _masked_softmax _native_batch_norm_legit _native_batch_norm_legit_functional
    _native_batch_norm_legit_no_training _safe_softmax _softmax _softmax_backward_data _weight_norm_interface
    batch_norm_backward batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt
    batch_norm_gather_stats batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats
    cudnn_batch_norm miopen_batch_norm native_batch_norm native_group_norm native_layer_norm
    # Pooling, and interpolation, whose few weights follow from positions alone.
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool3d_backward adaptive_max_pool2d adaptive_max_pool3d
    avg_pool2d avg_pool3d fractional_max_pool2d fractional_max_pool3d max_pool2d_backward max_pool2d_with_indices
    max_pool3d_with_indices max_unpool2d max_unpool3d mkldnn_adaptive_avg_pool2d mkldnn_max_pool2d mkldnn_max_pool3d
    _grid_sampler_2d_cpu_fallback cudnn_grid_sampler grid_sampler_2d grid_sampler_3d _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d torchvision::roi_align
    torchvision::_roi_align_backward torchvision::roi_pool torchvision::_roi_pool_backward torchvision::ps_roi_align
    torchvision::_ps_roi_align_backward torchvision::ps_roi_pool torchvision::_ps_roi_pool_backward torchvision::nms
    # Losses, the elementwise cells of recurrent layers, optimizers, simulated quantisation.
    _amp_foreach_non_finite_check_and_unscale _amp_update_scale _ctc_loss _cudnn_ctc_loss
    _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_tensor_affine
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fused_adagrad _fused_adam _fused_adamw _fused_sgd
    _thnn_fused_gru_cell _thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl _transform_bias_rescale_qkv
    _use_cudnn_ctc_loss binary_cross_entropy binary_cross_entropy_with_logits
    fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask huber_loss mse_loss
    multi_margin_loss multilabel_margin_loss_backward multilabel_margin_loss_forward nll_loss2d_backward
    nll_loss2d_forward nll_loss_backward nll_loss_forward quantize_per_channel quantize_per_tensor
    quantize_per_tensor_dynamic dequantize smooth_l1_loss soft_margin_loss
    # Random numbers and dropout.
    _cudnn_init_dropout_state _dirichlet_grad _fill_mem_eff_dropout_mask _fused_dropout _masked_scale
    _sample_dirichlet _standard_gamma _standard_gamma_grad bernoulli binomial cauchy exponential geometric
    log_normal multinomial native_dropout normal normal_functional poisson rand rand_like randint randint_like randn
    randn_like random randperm uniform
    # New tensors, copies, indexing, padding, questions about a tensor.
    _assert_async _assert_scalar _assert_tensor_metadata _chunk_cat _copy_from _copy_from_and_resize
    _cudnn_rnn_flatten_weight _efficientzerotensor _functional_assert_async _functional_assert_scalar
    _functional_sym_constrain_range _functional_sym_constrain_range_for_size _fused_sdp_choice _fw_primal_copy
    _has_same_storage_numel _index_put_impl _lazy_clone _local_scalar_dense _make_dep_token _make_dual_copy
    _new_zeros_with_same_feature_meta _pack_padded_sequence _pin_memory _reshape_alias_copy _reshape_copy
    _resize_output _stack _to_copy _unsafe_index _unsafe_index_put _unsafe_masked_index
    _unsafe_masked_index_put_accumulate _unsafe_view alias_copy arange as_strided as_strided_copy as_strided_scatter
    bartlett_window blackman_window block_diag cat channel_shuffle clone col2im constant_pad_nd contiguous copy
    detach detach_copy diag_embed diagonal_backward diagonal_copy diagonal_scatter embedding
    embedding_dense_backward embedding_renorm empty empty_like empty_permuted empty_strided expand_copy eye
    fft_fftfreq fft_rfftfreq fill flip from_file full full_like gather hamming_window hann_window im2col index
    index_add index_copy index_fill index_put index_reduce index_select is_pinned is_same_size is_set_to item
    kaiser_window lift lift_fresh lift_fresh_copy linspace logspace lu_unpack masked_fill masked_scatter
    masked_select narrow_copy new_empty new_empty_strided new_full new_ones new_zeros nonzero nonzero_static ones
    ones_like permute_copy pixel_shuffle pixel_unshuffle put range record_stream reflection_pad1d reflection_pad2d
    reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d resize resize_as
    roll rot90 scalar_tensor scatter scatter_add scatter_reduce select_backward select_copy select_scatter set
    shallow_copy_data size slice slice_copy slice_scatter split split_copy split_with_sizes_copy squeeze
    squeeze_copy stack stride sym_constrain_range sym_constrain_range_for_size sym_size sym_stride t t_copy take
    transpose transpose_copy tril tril_indices triu triu_indices unbind_copy unfold_backward unfold_copy
    unsafe_split unsafe_split_with_sizes unsqueeze unsqueeze_copy view_as_complex_copy view_as_real_copy view_copy
    zero zeros zeros_like prim::device profiler::_record_function_enter profiler::_record_function_enter_new
    profiler::_record_function_exit
    _foreach_powsum
"""
_FREE = frozenset(
    name for line in _FREE_NAMES.splitlines() if not line.lstrip().startswith("#") for name in line.split()
)
