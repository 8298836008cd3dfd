"""The operators that degradations are made of: blur kernels, filters, resizing, noise and JPEG.

An image is float64 (H, W, 3) RGB in grey levels, 0 to 255, unless said. Everything is computed in
float64, also by OpenCV and PyTorch, and rounded to 8 bit by a rule that does not rest on the last
bits of a sum (`pixels.nearest`): libraries that add in another order, as on another processor, then
give the same image.
"""
