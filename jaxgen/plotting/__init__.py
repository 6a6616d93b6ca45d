"""Pictures: figures with matplotlib, grids and mosaics with Pillow."""
