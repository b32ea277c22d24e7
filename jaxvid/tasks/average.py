"""Averages weights of one model, such as those of one run at several times.

A mean of places along a training is often better than any of them, and costs
nothing when used. Source: Izmailov et al., "Averaging Weights Leads to Wider
Optima and Better Generalization" (2018); Wortsman et al., "Model soups" (2022).
"""

import dataclasses

from jaxvid.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the task.

  Attributes:
    weights: two or more folders of weights, or training runs, of one model.
    output: folder for the mean, stored as the first one's numbers are.
  """

  weights: tuple[str, ...]
  output: str


def run(config: Config) -> None:
  """Writes the mean and prints its folder."""
  import jax
  import numpy as np

  from jaxvid.storage import weights
  from jaxvid.training import checkpoint

  if len(config.weights) < 2:
    raise UserError('an average needs weights, two folders or more')
  if not config.output:
    raise UserError('output says where the average goes; it is empty')
  head, first = checkpoint.load_params(config.weights[0], place=np.asarray)
  total = jax.tree.map(lambda leaf: np.array(leaf, np.float64), first)
  for place in config.weights[1:]:
    other, params = checkpoint.load_params(place, place=np.asarray)
    shapes = [jax.tree.map(np.shape, tree) for tree in (first, params)]
    if other != head or shapes[0] != shapes[1]:
      raise UserError(
        f'{place} and {config.weights[0]} are not weights of the same model'
      )
    total = jax.tree.map(np.add, total, params)
  count = len(config.weights)
  mean = jax.tree.map(
    lambda leaf, sum_: (sum_ / count).astype(leaf.dtype), first, total
  )
  weights.save(config.output, mean, head)
  print(f'{config.output} (the mean of {count})')
