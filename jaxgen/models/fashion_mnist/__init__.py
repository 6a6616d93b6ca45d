"""The networks for Fashion-MNIST and for two-dimensional toys."""
