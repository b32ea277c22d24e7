"""Makes a bundle of a trained model, so that it is found by one name.

  python -m jaxvid.main --config=configs/shapes/ship.py:small,diagdistill
  python -m jaxvid.main --config=configs/shapes/ship.py:nano,self_forcing

Takes the weights that a training wrote (`shapes_<name>`), the VAE and the
tokenizer. `small` becomes the packaged bundle `shapes_<name>`; of the other
sizes the folder is `runs/shapes/<size>/bundles/<name>`. Any bundle can be
given to the tasks `generate` and `evaluate` as their weights. Takes seconds.
"""

from ml_collections import config_dict

from jaxvid.training import shapes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  size, _, name = (arg or 'small').partition(',')
  name = name or 'diagdistill'
  shapes.sizes(size)
  side = shapes.PIXELS[size]
  target = shapes.bundle(name, size)
  if size == 'small':
    target = f'jaxvid/weights/{target}'
  return config_dict.ConfigDict(
    {
      'task': 'ship',
      'target': target,
      'dit': shapes.exported(f'shapes_{name}', size),
      'vae': 'jaxvid/weights/shapes_vae',
      'tokenizer': shapes.TOKENIZER,
      'size': (side, side),
    }
  )
