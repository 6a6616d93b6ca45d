"""Caffe's messages, described in a few lines each and built when they are first needed.

Caffe's models are protocol buffers. The messages below carry the public names and field
numbers that a prototxt or caffemodel uses for what a network computes; training-only
messages are cut down to what may legitimately stand in a deployed file. One line per
message, fields separated by commas:

    field number type[*] [=default]

`*` is repeated, `**` repeated and packed. `Enum` lines list values as NAME=number.
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["message_class"]

ENUMS = {
    "Phase": "TRAIN=0 TEST=1",
    "Engine": "DEFAULT=0 CAFFE=1 CUDNN=2",
    "PoolMethod": "MAX=0 AVE=1 STOCHASTIC=2",
    "RoundMode": "CEIL=0 FLOOR=1",
    "NormRegion": "ACROSS_CHANNELS=0 WITHIN_CHANNEL=1",
    "EltwiseOp": "PROD=0 SUM=1 MAX=2",
    "ReductionOp": "SUM=1 ASUM=2 SUMSQ=3 MEAN=4",
    "VarianceNorm": "FAN_IN=0 FAN_OUT=1 AVERAGE=2",
    "DimCheckMode": "STRICT=0 PERMISSIVE=1",
    "NormalizationMode": "FULL=0 VALID=1 BATCH_SIZE=2 NONE=3",
    "HingeNorm": "L1=1 L2=2",
    "Backend": "LEVELDB=0 LMDB=1",
    "LayerType": (
        "NONE=0 ACCURACY=1 BNLL=2 CONCAT=3 CONVOLUTION=4 DATA=5 DROPOUT=6 EUCLIDEAN_LOSS=7 "
        "FLATTEN=8 HDF5_DATA=9 HDF5_OUTPUT=10 IM2COL=11 IMAGE_DATA=12 INFOGAIN_LOSS=13 "
        "INNER_PRODUCT=14 LRN=15 MULTINOMIAL_LOGISTIC_LOSS=16 POOLING=17 RELU=18 SIGMOID=19 "
        "SOFTMAX=20 SOFTMAX_LOSS=21 SPLIT=22 TANH=23 WINDOW_DATA=24 ELTWISE=25 POWER=26 "
        "SIGMOID_CROSS_ENTROPY_LOSS=27 HINGE_LOSS=28 MEMORY_DATA=29 ARGMAX=30 THRESHOLD=31 "
        "DUMMY_DATA=32 SLICE=33 MVN=34 ABSVAL=35 SILENCE=36 CONTRASTIVE_LOSS=37 EXP=38 "
        "DECONVOLUTION=39"
    ),
}

MESSAGES = {
    "BlobShape": "dim 1 int64**",
    "BlobProto": (
        "num 1 int32, channels 2 int32, height 3 int32, width 4 int32, data 5 float**, "
        "diff 6 float**, shape 7 BlobShape, double_data 8 double**, double_diff 9 double**, "
        "raw_data_type 10 int32, raw_diff_type 11 int32, raw_data 12 bytes, raw_diff 13 bytes"
    ),
    "FillerParameter": (
        "type 1 string, value 2 float, min 3 float, max 4 float, mean 5 float, std 6 float, "
        "sparse 7 int32, variance_norm 8 VarianceNorm"
    ),
    "NetState": "phase 1 Phase, level 2 int32, stage 3 string*",
    "NetStateRule": (
        "phase 1 Phase, min_level 2 int32, max_level 3 int32, stage 4 string*, not_stage 5 string*"
    ),
    "ParamSpec": "name 1 string, share_mode 2 DimCheckMode, lr_mult 3 float, decay_mult 4 float",
    "NetParameter": (
        "name 1 string, layers 2 V1LayerParameter*, input 3 string*, input_dim 4 int32*, "
        "force_backward 5 bool, state 6 NetState, debug_info 7 bool, input_shape 8 BlobShape*, "
        "layer 100 LayerParameter*"
    ),
    "LayerParameter": (
        "name 1 string, type 2 string, bottom 3 string*, top 4 string*, loss_weight 5 float*, "
        "param 6 ParamSpec*, blobs 7 BlobProto*, include 8 NetStateRule*, "
        "exclude 9 NetStateRule*, phase 10 Phase, propagate_down 11 bool*, "
        "transform_param 100 TransformationParameter, loss_param 101 LossParameter, "
        "accuracy_param 102 AccuracyParameter, argmax_param 103 ArgMaxParameter, "
        "concat_param 104 ConcatParameter, contrastive_loss_param 105 ContrastiveLossParameter, "
        "convolution_param 106 ConvolutionParameter, data_param 107 DataParameter, "
        "dropout_param 108 DropoutParameter, dummy_data_param 109 DummyDataParameter, "
        "eltwise_param 110 EltwiseParameter, exp_param 111 ExpParameter, "
        "hdf5_data_param 112 HDF5DataParameter, hdf5_output_param 113 HDF5OutputParameter, "
        "hinge_loss_param 114 HingeLossParameter, image_data_param 115 ImageDataParameter, "
        "infogain_loss_param 116 InfogainLossParameter, "
        "inner_product_param 117 InnerProductParameter, lrn_param 118 LRNParameter, "
        "memory_data_param 119 MemoryDataParameter, mvn_param 120 MVNParameter, "
        "pooling_param 121 PoolingParameter, power_param 122 PowerParameter, "
        "relu_param 123 ReLUParameter, sigmoid_param 124 EngineParameter, "
        "softmax_param 125 SoftmaxParameter, slice_param 126 SliceParameter, "
        "tanh_param 127 EngineParameter, threshold_param 128 ThresholdParameter, "
        "window_data_param 129 WindowDataParameter, python_param 130 PythonParameter, "
        "prelu_param 131 PReLUParameter, reshape_param 133 ReshapeParameter, "
        "log_param 134 ExpParameter, flatten_param 135 FlattenParameter, "
        "reduction_param 136 ReductionParameter, embed_param 137 EmbedParameter, "
        "tile_param 138 TileParameter, batch_norm_param 139 BatchNormParameter, "
        "elu_param 140 ELUParameter, bias_param 141 BiasParameter, scale_param 142 ScaleParameter, "
        "input_param 143 InputParameter, crop_param 144 CropParameter, "
        "recurrent_param 146 RecurrentParameter, swish_param 147 SwishParameter, "
        "clip_param 148 ClipParameter, permute_param 202 PermuteParameter, "
        "norm_param 206 NormalizeParameter, interp_param 225 InterpParameter"
    ),
    "V1LayerParameter": (
        "layer 1 V0LayerParameter, bottom 2 string*, top 3 string*, name 4 string, "
        "type 5 LayerType, blobs 6 BlobProto*, blobs_lr 7 float*, weight_decay 8 float*, "
        "concat_param 9 ConcatParameter, convolution_param 10 ConvolutionParameter, "
        "data_param 11 DataParameter, dropout_param 12 DropoutParameter, "
        "hdf5_data_param 13 HDF5DataParameter, hdf5_output_param 14 HDF5OutputParameter, "
        "image_data_param 15 ImageDataParameter, infogain_loss_param 16 InfogainLossParameter, "
        "inner_product_param 17 InnerProductParameter, lrn_param 18 LRNParameter, "
        "pooling_param 19 PoolingParameter, window_data_param 20 WindowDataParameter, "
        "power_param 21 PowerParameter, memory_data_param 22 MemoryDataParameter, "
        "argmax_param 23 ArgMaxParameter, eltwise_param 24 EltwiseParameter, "
        "threshold_param 25 ThresholdParameter, dummy_data_param 26 DummyDataParameter, "
        "accuracy_param 27 AccuracyParameter, hinge_loss_param 29 HingeLossParameter, "
        "relu_param 30 ReLUParameter, slice_param 31 SliceParameter, include 32 NetStateRule*, "
        "exclude 33 NetStateRule*, mvn_param 34 MVNParameter, loss_weight 35 float*, "
        "transform_param 36 TransformationParameter, tanh_param 37 EngineParameter, "
        "sigmoid_param 38 EngineParameter, softmax_param 39 SoftmaxParameter, "
        "contrastive_loss_param 40 ContrastiveLossParameter, exp_param 41 ExpParameter, "
        "loss_param 42 LossParameter, param 1001 string*, blob_share_mode 1002 DimCheckMode*"
    ),
    "V0LayerParameter": (
        "name 1 string, type 2 string, num_output 3 uint32, biasterm 4 bool=true, "
        "weight_filler 5 FillerParameter, bias_filler 6 FillerParameter, pad 7 uint32, "
        "kernelsize 8 uint32, group 9 uint32=1, stride 10 uint32=1, pool 11 PoolMethod, "
        "dropout_ratio 12 float, local_size 13 uint32=5, alpha 14 float=1, beta 15 float=0.75, "
        "source 16 string, scale 17 float=1, meanfile 18 string, batchsize 19 uint32, "
        "cropsize 20 uint32, mirror 21 bool, k 22 float=1, blobs 50 BlobProto*, "
        "blobs_lr 51 float*, weight_decay 52 float*, rand_skip 53 uint32, new_num 60 int32, "
        "new_channels 61 int32, new_height 62 int32, new_width 63 int32, "
        "shuffle_images 64 bool, concat_dim 65 uint32=1"
    ),
    "TransformationParameter": (
        "scale 1 float=1, mirror 2 bool, crop_size 3 uint32, mean_file 4 string, "
        "mean_value 5 float*, force_color 6 bool, force_gray 7 bool"
    ),
    "LossParameter": "ignore_label 1 int32, normalize 2 bool, normalization 3 NormalizationMode",
    "AccuracyParameter": "top_k 1 uint32, axis 2 int32, ignore_label 3 int32",
    "ArgMaxParameter": "out_max_val 1 bool, top_k 2 uint32=1, axis 3 int32",
    "ConcatParameter": "concat_dim 1 uint32=1, axis 2 int32=1",
    "BatchNormParameter": (
        "use_global_stats 1 bool, moving_average_fraction 2 float, eps 3 float=1e-5"
    ),
    "BiasParameter": "axis 1 int32=1, num_axes 2 int32=1, filler 3 FillerParameter",
    "ClipParameter": "min 1 float, max 2 float",
    "ContrastiveLossParameter": "margin 1 float, legacy_version 2 bool",
    "ConvolutionParameter": (
        "num_output 1 uint32, bias_term 2 bool=true, pad 3 uint32*, kernel_size 4 uint32*, "
        "group 5 uint32=1, stride 6 uint32*, weight_filler 7 FillerParameter, "
        "bias_filler 8 FillerParameter, pad_h 9 uint32, pad_w 10 uint32, kernel_h 11 uint32, "
        "kernel_w 12 uint32, stride_h 13 uint32, stride_w 14 uint32, engine 15 Engine, "
        "axis 16 int32=1, force_nd_im2col 17 bool, dilation 18 uint32*"
    ),
    "CropParameter": "axis 1 int32=2, offset 2 uint32*",
    "DataParameter": (
        "source 1 string, scale 2 float, mean_file 3 string, batch_size 4 uint32, "
        "crop_size 5 uint32, mirror 6 bool, rand_skip 7 uint32, backend 8 Backend, "
        "force_encoded_color 9 bool, prefetch 10 uint32"
    ),
    "DropoutParameter": "dropout_ratio 1 float",
    "DummyDataParameter": (
        "data_filler 1 FillerParameter*, num 2 uint32*, channels 3 uint32*, height 4 uint32*, "
        "width 5 uint32*, shape 6 BlobShape*"
    ),
    "EltwiseParameter": "operation 1 EltwiseOp=SUM, coeff 2 float*, stable_prod_grad 3 bool",
    "ELUParameter": "alpha 1 float=1",
    "EmbedParameter": (
        "num_output 1 uint32, input_dim 2 uint32, bias_term 3 bool=true, "
        "weight_filler 4 FillerParameter, bias_filler 5 FillerParameter"
    ),
    "EngineParameter": "engine 1 Engine",
    "ExpParameter": "base 1 float=-1, scale 2 float=1, shift 3 float=0",
    "FlattenParameter": "axis 1 int32=1, end_axis 2 int32=-1",
    "HDF5DataParameter": "source 1 string, batch_size 2 uint32, shuffle 3 bool",
    "HDF5OutputParameter": "file_name 1 string",
    "HingeLossParameter": "norm 1 HingeNorm",
    "ImageDataParameter": (
        "source 1 string, scale 2 float, mean_file 3 string, batch_size 4 uint32, "
        "crop_size 5 uint32, mirror 6 bool, rand_skip 7 uint32, shuffle 8 bool, "
        "new_height 9 uint32, new_width 10 uint32, is_color 11 bool, root_folder 12 string"
    ),
    "InfogainLossParameter": "source 1 string, axis 2 int32",
    "InnerProductParameter": (
        "num_output 1 uint32, bias_term 2 bool=true, weight_filler 3 FillerParameter, "
        "bias_filler 4 FillerParameter, axis 5 int32=1, transpose 6 bool"
    ),
    "InputParameter": "shape 1 BlobShape*",
    "InterpParameter": (
        "height 1 int32, width 2 int32, zoom_factor 3 int32=1, shrink_factor 4 int32=1, "
        "pad_beg 5 int32, pad_end 6 int32"
    ),
    "LRNParameter": (
        "local_size 1 uint32=5, alpha 2 float=1, beta 3 float=0.75, norm_region 4 NormRegion, "
        "k 5 float=1, engine 6 Engine"
    ),
    "MemoryDataParameter": (
        "batch_size 1 uint32, channels 2 uint32, height 3 uint32, width 4 uint32"
    ),
    "MVNParameter": "normalize_variance 1 bool=true, across_channels 2 bool, eps 3 float=1e-9",
    "NormalizeParameter": (
        "across_spatial 1 bool=true, scale_filler 2 FillerParameter, channel_shared 3 bool=true, "
        "eps 4 float=1e-10"
    ),
    "PermuteParameter": "order 1 uint32*",
    "PoolingParameter": (
        "pool 1 PoolMethod, kernel_size 2 uint32*, stride 3 uint32*, pad 4 uint32*, "
        "kernel_h 5 uint32, kernel_w 6 uint32, stride_h 7 uint32, stride_w 8 uint32, "
        "pad_h 9 uint32, pad_w 10 uint32, engine 11 Engine, global_pooling 12 bool, "
        "round_mode 13 RoundMode, ceil_mode 14 bool=true"
    ),
    "PowerParameter": "power 1 float=1, scale 2 float=1, shift 3 float=0",
    "PReLUParameter": "filler 1 FillerParameter, channel_shared 2 bool",
    "PythonParameter": (
        "module 1 string, layer 2 string, param_str 3 string, share_in_parallel 4 bool"
    ),
    "RecurrentParameter": (
        "num_output 1 uint32, weight_filler 2 FillerParameter, bias_filler 3 FillerParameter, "
        "debug_info 4 bool, expose_hidden 5 bool"
    ),
    "ReductionParameter": "operation 1 ReductionOp=SUM, axis 2 int32, coeff 3 float=1",
    "ReLUParameter": "negative_slope 1 float, engine 2 Engine",
    "ReshapeParameter": "shape 1 BlobShape, axis 2 int32=0, num_axes 3 int32=-1",
    "ScaleParameter": (
        "axis 1 int32=1, num_axes 2 int32=1, filler 3 FillerParameter, bias_term 4 bool, "
        "bias_filler 5 FillerParameter"
    ),
    "SliceParameter": "slice_dim 1 uint32=1, slice_point 2 uint32*, axis 3 int32=1",
    "SoftmaxParameter": "engine 1 Engine, axis 2 int32=1",
    "SwishParameter": "beta 1 float=1",
    "ThresholdParameter": "threshold 1 float",
    "TileParameter": "axis 1 int32=1, tiles 2 int32",
    "WindowDataParameter": (
        "source 1 string, scale 2 float, mean_file 3 string, batch_size 4 uint32, "
        "crop_size 5 uint32, mirror 6 bool, fg_threshold 7 float, bg_threshold 8 float, "
        "fg_fraction 9 float, context_pad 10 uint32, crop_mode 11 string, cache_images 12 bool, "
        "root_folder 13 string"
    ),
}

_SCALARS = {
    "double": 1, "float": 2, "int64": 3, "int32": 5, "bool": 8, "string": 9, "bytes": 12,
    "uint32": 13,
}  # fmt: skip


def message_class(name: str) -> Any:
    """Return the class of one of the messages above.

    Raises:
      ImportError: if the protobuf library is not installed, saying how to get it.
    """
    return _classes()[name]


@functools.cache
def _classes() -> dict[str, Any]:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise ImportError(
            "reading a prototxt needs protobuf: pip install 'jaxgen[convert]'"
        ) from error
    file = descriptor_pb2.FileDescriptorProto(
        name="jaxgen/caffe.proto", package="caffe", syntax="proto2"
    )
    for name, values in ENUMS.items():
        # Value names are siblings of their enum, so each enum lives in a message of its own.
        enum = file.message_type.add(name=f"{name}s").enum_type.add(name=name)
        for value in values.split():
            label, number = value.split("=")
            enum.value.add(name=label, number=int(number))
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields.split(", "):
            _add_field(message, text)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in MESSAGES
    }


def _add_field(message: Any, text: str) -> None:
    name, number, kind = text.split()
    kind, _, default = kind.partition("=")
    bare = kind.rstrip("*")
    field = message.field.add(name=name, number=int(number), label=3 if bare != kind else 1)
    if kind.endswith("**"):
        field.options.packed = True
    if bare in _SCALARS:
        field.type = _SCALARS[bare]
    elif bare in ENUMS:
        field.type, field.type_name = 14, f".caffe.{bare}s.{bare}"
    else:
        field.type, field.type_name = 11, f".caffe.{bare}"
    if default:
        field.default_value = default
