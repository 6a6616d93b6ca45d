"""ONNX files, as PyTorch, Keras, TensorFlow, PaddlePaddle, MATLAB and others export them."""
