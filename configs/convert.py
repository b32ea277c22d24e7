"""Converts checkpoints of the Wan2.1 family to our format and back.

  python -m jaxvid.main --config=configs/convert.py \
    --config.source=Wan2.1-T2V-1.3B --config.target=weights/wan_1_3b

The source may be an official file or folder, a diffusers folder, a `.pt` of
Self-Forcing, CausVid, LongLive or DiagDistill, a UMT5 or autoencoder file, a
peft LoRA file, or a folder of ours; what it is shows in its keys. In a folder
of several models `--config.kind=vae` (dit, vae, tae, text, lora) picks one.
`--config.lora=lora.pt --config.lora_alpha=256` merges an adapter.

A target ending in `.safetensors` gets official keys, any other name becomes a
folder of ours; both bit for bit. Limited by the disk: about 10 s for 1.3B,
with no more memory than 1.3 times the checkpoint.
"""

from ml_collections import config_dict


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict({'task': 'convert'})
