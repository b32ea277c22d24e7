"""BlockVid, stage 1: Block Forcing of SkyReels-V2-DF-1.3B on mixed long takes.

  python -m jaxvid.main --config=configs/wan/blockvid_stage1.py

One epoch of 1.1 M videos took the authors about 7 days on 32 H20 GPUs.
Theirs (LV-1.1M) is private: `configs/videos/folder.py` makes such a set of
your own.
Clips have one caption per chunk of 9 latents; their latents are cached with

  python -m jaxvid.main --config=configs/videos/latents.py \
    --config.videos=DATASET --config.vae=Wan2.1-T2V-1.3B \
    --config.target=data/latents/long_takes_mixed --config.per_chunk=true \
    --config.chunk=9 --config.frames=249

Hyper-parameters are marked *paper* or *ours* in
`jaxvid/training/block_recipes.py` (BlockVid, section 5.1, appendix A.9); the
paper gives neither gamma nor eps_min nor the adversary's settings. Not run,
and not measured on a GPU.
"""

from ml_collections import config_dict

from jaxvid.training import block_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(block_recipes.wan_block('stage1'))
