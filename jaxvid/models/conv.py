"""2-D convolutions of frames, and their kernels as a device wants them.

A kernel is `[kh, kw, I, O]` where it is trained and saved. Two changes, made
once when a decoder is loaded, make it faster without changing what it computes:

*Folding.* Enlarging by repetition and a 3x3 convolution touch each pixel of
the small picture several times with the same value. Summed beforehand, the
nine weights become four of a 2x2 convolution for each of the four pixels that
come of one (sub-pixel convolution): 4/9 of the products, and the enlarged
picture is never written.

*Output channels first.* `[O, kh, kw, I]` is what convolutions with channels
last want on a GPU; anything else is transposed there at every call.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Rows of a 3-tap kernel that meet the two small-picture pixels under each of
# the two large ones: pixel 2i sees (i-1, i, i), pixel 2i+1 sees (i, i, i+1).
_PHASES = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


def conv2d(x, kernel, strides=(1, 1), padding='SAME', out_first=False):
  """2-D convolution of every frame, channels last.

  Args:
    x: `[..., H, W, I]`.
    kernel: `[kh, kw, I, O]`, or `[O, kh, kw, I]` with `out_first`.
    strides: along height and width.
    padding: as `jax.lax.conv_general_dilated` takes it.
    out_first: layout of the kernel.
  """
  frames = x.reshape(-1, *x.shape[-3:])
  layout = 'OHWI' if out_first else 'HWIO'
  y = jax.lax.conv_general_dilated(
    frames, kernel, strides, padding, dimension_numbers=('NHWC', layout, 'NHWC')
  )
  return y.reshape(*x.shape[:-3], *y.shape[1:])


def store(kernel, stacked: bool = False):
  """`[..., I, O]` -> `[O, ..., I]`, of numpy or jax.

  Args:
    kernel: of a convolution.
    stacked: `[kt, kh, kw, I, O]` -> `[O, kh, kw, kt, I]`, for frames that are
      stacked into channels.
  """
  if stacked:
    return kernel.transpose(4, 1, 2, 0, 3)
  order = (kernel.ndim - 1, *range(kernel.ndim - 1))
  return kernel.transpose(order)


def fold_upsample(kernel: np.ndarray) -> np.ndarray:
  """A 3x3 kernel after enlarging twice, as one for `subpixel_conv`.

  Args:
    kernel: `[3, 3, I, *rest]`.

  Returns:
    `[2, 2, I, prod(rest)]` for each of the 2 x 2 pixels that come of one:
    `[2, 2, I, 2 * 2 * prod(rest)]`, float32, rows of pixels outermost.
  """
  kernel = np.asarray(kernel, np.float32)
  folded = np.einsum('ayh,bxw,hwi...->yxiab...', _PHASES, _PHASES, kernel)
  return folded.reshape(2, 2, kernel.shape[2], -1)


def subpixel_conv(x, kernel, times: int = 1, out_first: bool = False):
  """Enlarges twice and convolves, all at the size of the small picture.

  Args:
    x: `[..., H, W, I]`.
    kernel: of `fold_upsample`, `[2, 2, I, 4 * times * O]`, pixels outermost.
    times: results per pixel.
    out_first: layout of the kernel.

  Returns:
    `[..., 2 H, 2 W, times, O]`.
  """
  height, width = x.shape[-3:-1]
  # Pixel (a, b) of position (i, j) reads rows i - 1 + a and i + a: one
  # convolution over all windows serves the four, each with its own corner.
  y = conv2d(x, kernel, padding=((1, 1), (1, 1)), out_first=out_first)
  y = y.reshape(*y.shape[:-1], 2, 2, times, -1)
  rows = [
    jnp.stack(
      [y[..., a : a + height, b : b + width, a, b, :, :] for b in (0, 1)], -3
    )
    for a in (0, 1)
  ]
  y = jnp.stack(rows, -5)
  return y.reshape(*x.shape[:-3], 2 * height, 2 * width, times, y.shape[-1])
