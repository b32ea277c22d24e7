"""BlockVid, stage 2: Block Forcing on videos of 50 seconds and more.

  python -m jaxvid.main --config=configs/wan/blockvid_stage2.py

Two epochs of LV-Bench's 800 training videos took the authors about 50 hours
on 32 H20 GPUs. Starts from the weights of `blockvid_stage1.py`.
Clips have one caption per chunk of 9 latents; their latents are cached with

  python -m jaxvid.main --config=configs/videos/latents.py \
    --config.videos=DATASET --config.vae=Wan2.1-T2V-1.3B \
    --config.target=data/latents/long_takes_50s --config.per_chunk=true \
    --config.chunk=9 --config.frames=465

Hyper-parameters are marked *paper* or *ours* in
`jaxvid/training/block_recipes.py` (BlockVid, section 5.1, appendix A.9); the
paper gives neither gamma nor eps_min nor the adversary's settings. Not run,
and not measured on a GPU.
"""

from ml_collections import config_dict

from jaxvid.training import block_recipes


def get_config(arg: str = '') -> config_dict.ConfigDict:
  del arg
  return config_dict.ConfigDict(block_recipes.wan_block('stage2'))
