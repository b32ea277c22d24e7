"""Does a model of the shapes world read directions from its caption?

    python -m benchmarks.directions jaxvid/weights/shapes_teacher/model

Noised clips are denoised under their own caption and under one whose left and
right, up and down are swapped. Prints the velocity's mean square error under
the first, and by how much the second costs more, for several time steps. A
model that costs the same has not learnt what the words mean. For bidirectional
weights; about a minute on two CPU cores.
"""

import argparse
import functools
import re

import jax
import jax.numpy as jnp

from jaxvid.data.loaders import RenderedShapes
from jaxvid.data.shapes.scene import SceneSettings
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.diffusion import flow
from jaxvid.models import text as text_lib
from jaxvid.models import vae
from jaxvid.models.dit import DiT
from jaxvid.training import autoencoder, checkpoint, shapes
from jaxvid.training.autoencoder import to_float

PAIRS = (('left', 'right'), ('up', 'down'))
TIMES = (800, 900, 950, 970, 980, 990)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('weights', help='a folder of weights, or a run')
  parser.add_argument('--size', default='small')
  parser.add_argument('--frames', type=int, default=81)
  parser.add_argument('--clips', type=int, default=48)
  flags = parser.parse_args()
  captions, x0 = clips(flags.clips, flags.frames)
  for t, (error, cost) in measure(flags.weights, flags.size, captions, x0):
    print(f't = {t}: error {error:.4f}, swapped {cost:+.4f}')


def swapped(caption: str) -> str:
  """The caption with every direction turned round."""
  words = {a + end: b + end for a, b in PAIRS for end in ('', 'ward', 'wards')}
  words |= {b: a for a, b in words.items()}
  return re.sub(r'\w+', lambda m: words.get(m[0], m[0]), caption)


def clips(count: int, frames: int) -> tuple[list[str], jax.Array]:
  """Captions that name a direction, and latents `[N, F, h, w, C]`."""
  settings = SceneSettings(counts=(1.0,), pan_probability=0.0)
  source = RenderedShapes(settings, frames, seed=1234)
  model, params = autoencoder.load_vae(shapes.VAE)
  encode = jax.jit(lambda video: vae.encode(model, params, to_float(video))[0])
  captions, latents, i = [], [], 0
  while len(captions) < count:
    clip, i = source[i], i + 1
    caption = clip['captions'][0]
    if swapped(caption) != caption:
      captions.append(caption)
      latents.append(encode(clip['video'][None])[0])
  return captions, jnp.stack(latents)


def measure(weights: str, size: str, captions: list[str], x0: jax.Array):
  """Yields (time step, (error, cost of the swap))."""
  dit, encoder = shapes.sizes(size)
  tokens = Tokenizer.load(shapes.TOKENIZER, dit.text_len)
  _, params = checkpoint.load_params(weights, dtype='float32')
  network = DiT(dit, scan=False)
  encode = functools.partial(text_lib.encode, encoder, params['text'])
  texts = [
    encode(*tokens(said), jnp.float32)
    for said in (captions, list(map(swapped, captions)))
  ]
  noise = jax.random.normal(jax.random.key(1), x0.shape)

  @jax.jit
  def error(t, text):
    x = flow.add_noise(x0, noise, t / 1000)
    v = network.apply({'params': params['dit']}, x, jnp.full(len(x0), t), text)[
      0
    ]
    return jnp.mean(jnp.square(v - flow.training_target(x0, noise)))

  for t in TIMES:
    own, other = (float(error(jnp.float32(t), text)) for text in texts)
    yield t, (own, other - own)


if __name__ == '__main__':
  main()
