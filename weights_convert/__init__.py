"""Networks of other frameworks as Flax networks, proven equal layer by layer.

    python -m weights_convert caffe deploy.prototxt net.caffemodel --out net.safetensors --verify
    python -m weights_convert torch net.pth --recipe NAME --out net.safetensors --verify
    python -m weights_convert inspect FILE

Files are read without trust: no code in them runs, and sizes are checked before memory is
taken. Imports go from here to `jaxgen`, never back.
"""
