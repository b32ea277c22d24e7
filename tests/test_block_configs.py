"""BlockVid's data, recipes and ablations fit together."""

import json
import pathlib

import numpy as np
import pytest
from test_training_configs import load

from jaxvid.data import latents, prompt_script, scripts
from jaxvid.data.shapes import captions
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes import script as script_lib
from jaxvid.data.tokenizer import Tokenizer
from jaxvid.errors import UserError
from jaxvid.tasks import ablate, generate, scripted
from jaxvid.tasks import latents as cache_task
from jaxvid.training import optimizer, shapes

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / 'configs/scripts').glob('blockvid_*.jsonl'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_the_papers_captions_are_scripts(path):
  cues = prompt_script.read_script(path)
  assert len(cues) in (13, 15)
  spread = prompt_script.by_chunk(cues, 3, 81)
  assert len(spread) == len(cues) and spread[0] == cues[0].prompt


def test_all_seven_videos_are_there():
  assert len(FILES) == 7


def test_stages_follow_each_other():
  first = load('configs/shapes/blockvid.py:nano,stage1')
  second = load('configs/shapes/blockvid.py:nano,stage2')
  causal = load('configs/shapes/causal.py:nano')
  assert first.block.weights == first.block.encoder == causal.workdir
  assert second.block.weights == first.workdir
  for stage, cache in ((first, 'scripts'), (second, 'scripts_long')):
    made = load(f'configs/shapes/latents.py:{cache}')
    assert stage.block.data.latents == made.target
    assert made.frames == 4 * stage.block.data.frames - 3
    assert made.chunk == stage.block.chunk
    assert made.script
  assert first.block.dit == causal.diffusion.dit


def test_published_hyper_parameters():
  for stage in (1, 2):
    config = load(f'configs/wan/blockvid_stage{stage}.py')
    adam, block = config.loop.optimizer, config.block
    assert (adam.kind, adam.learning_rate, adam.weight_decay) == (
      'adamw',
      1e-4,
      1e-4,
    )
    rate = optimizer.schedule(adam, config.loop.steps)
    assert float(rate(0)) == pytest.approx(1e-4)
    assert float(rate(config.loop.steps - 1)) == pytest.approx(5e-5)
    assert (block.bank.retrieved, block.bank.tau) == (2, 0.98)
    assert block.size == (480 // 8, 848 // 8)
    assert block.rising.curve == 'cosine' and block.dit.fps == 16
  stream = load('configs/wan/blockvid.py')
  assert stream.noise.shuffle == 4 and stream.bank.retrieved == 2


def test_unknown_arguments_are_named():
  for arg in ('huge', 'nano,stage3', 'nano,stage1,x'):
    with pytest.raises(UserError, match=r"'(huge|stage3|x)'"):
      load(f'configs/shapes/blockvid.py:{arg}')


ABLATIONS = ('noise', 'memory', 'forcing', 'stages', 'returning', 'gamma')


@pytest.mark.parametrize('name', ABLATIONS)
def test_ablations_go_on_from_one_first_stage(name):
  config = load(f'configs/ablations/block_{name}.py')
  stages = {stage.name: stage for stage in ablate.stages_of(config)}
  first, *others = [s for n, s in stages.items() if n.startswith('train_')]
  assert first.name == 'train_block_stage1_s0'
  for stage in others:
    told = dict(text.split('=', 1) for text in stage.overrides)
    start = told.get('block.weights', '')
    assert start in (
      f'{first.outputs[0]}/weights',
      'runs/shapes/nano/causal_teacher',
    )
  assert 'right' in config.columns and 'vde_subject' in config.columns


def test_captions_of_scripts_change_where_the_shots_do():
  source = scripts.RenderedScripts(
    scene_lib.SceneSettings(height=16, width=16), 81, 'returning', 3
  )
  script, clip = source.script(4), source[4]
  assert clip['video'].shape == (81, 16, 16, 3)
  assert len(clip['captions']) == 7  # Of 21 latents.
  assert clip['captions'][0] == clip['captions'][-1] == script.shots[2].caption
  starts = scripts.chunk_starts(21, 3)
  assert starts.tolist() == [0, 9, 21, 33, 45, 57, 69]
  owner = script_lib.shot_of(script, starts)
  assert [script.shots[i].caption for i in owner] == clip['captions']
  assert json.loads(clip['script'])['frames'] == 81


def test_a_cache_of_scripts_is_read_with_a_prompt_per_chunk(tmp_path):
  captions = ['a red circle', 'a blue square', 'a red circle']
  rows = [
    {
      'latents': np.full((6, 2, 2, 3), i, np.float16),
      'captions': captions,
      'scene': '{}',
    }
    for i in range(4)
  ]
  from jaxvid.data import shards

  shards.prepare(tmp_path, {})
  latents.write_shard(tmp_path, 0, (6, 2, 2, 3), rows)
  tokenizer = Tokenizer.load(shapes.TOKENIZER, 16)
  options = {'batch': 2, 'text_drop': 0.5, 'seed': 0}
  batches = scripts.script_batches(
    str(tmp_path), tokenizer, frames=4, chunk=2, **options
  )
  batch = next(batches)
  assert batch['latents'].shape == (2, 4, 2, 2, 3)
  assert batch['ids'].shape == (2, 2, 16)
  assert batch['dropped'].dtype == bool
  ids, _ = tokenizer(captions[:2])
  np.testing.assert_array_equal(batch['ids'][0], ids)
  for bad in ({'frames': 5, 'chunk': 2}, {'frames': 8, 'chunk': 2}):
    with pytest.raises(UserError, match='whole chunks of 2'):
      scripts.script_batches(str(tmp_path), tokenizer, **bad, **options)
  with pytest.raises(UserError, match='3 captions for 6 latent frames'):
    scripts.script_batches(
      str(tmp_path), tokenizer, frames=3, chunk=3, **options
    )


def test_the_task_caches_scripts():
  config = load('configs/shapes/latents.py:scripts')
  source = cache_task.make_source(config)
  assert isinstance(source, scripts.RenderedScripts)
  assert (source.kind, source.shots) == ('follow_up', 2)


@pytest.mark.parametrize('kind', ['returning', 'follow_up'])
def test_stories_to_be_measured(kind):
  config = generate.Config(seconds=11.0)
  told = scripted.stories(config, kind, 3, 1, 5, 0)
  assert len(told) == 5
  for story in told:
    assert len(story.prompts) == 15 and len(story.shots) == 3
    assert len(set(story.prompts)) >= 2
    if kind == 'returning':
      assert story.prompts[0] == story.prompts[-1]
  again = scripted.stories(config, kind, 3, 1, 5, 0)
  assert [s.prompts for s in again] == [s.prompts for s in told]


def test_terse_stories_leave_open_what_to_return_to():
  config = generate.Config(seconds=11.0)
  told = scripted.stories(config, 'returning', 3, 2, 6, 0, terse=True)
  assert len(told) == 6
  for story in told:
    specs = [spec for _, spec in story.shots]
    assert specs[0] == specs[2]
    assert specs[0].tone is specs[0].shading is None
    assert all(thing.size is None for thing in specs[0].objects)
    assert specs[1].tone and all(thing.size for thing in specs[1].objects)
    scenes = [shot.scene for shot in story.script.shots]
    assert all(map(captions.agrees, specs, scenes))
  with pytest.raises(UserError, match='terse is for scripts that return'):
    scripted.stories(config, 'follow_up', 3, 1, 4, 0, terse=True)
  with pytest.raises(UserError, match='terse is for scripts that return'):
    cache_task.Config('vae', 'data', script='follow_up', terse=True)
