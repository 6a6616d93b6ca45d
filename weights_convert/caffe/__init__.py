"""Caffe networks, any of them: prototxt and caffemodel to one flax module.

from weights_convert import caffe
converted = caffe.convert("deploy.prototxt", "net.caffemodel")
caffe.save_converted("net.safetensors", converted)
network = caffe.load_converted("net.safetensors")
"""

from weights_convert.caffe.caffemodel import Caffemodel, read_binaryproto
from weights_convert.caffe.importer import Converted, convert, load_converted, save_converted
from weights_convert.caffe.preprocess import PRESETS, Preprocessing
from weights_convert.caffe.prototxt import read_prototxt

__all__ = [
    "PRESETS",
    "Caffemodel",
    "Converted",
    "Preprocessing",
    "convert",
    "load_converted",
    "read_binaryproto",
    "read_prototxt",
    "save_converted",
]
