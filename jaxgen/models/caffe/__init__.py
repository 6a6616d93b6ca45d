"""Networks converted from Caffe: their layers, the graph, and LRCN's captioner."""
