"""BlockVid end to end on a tiny random model: train, stream, measure."""

import json
import pathlib

import numpy as np
import pytest
import tiny_bundle

from jaxvid.data import latents, shards, video
from jaxvid.diffusion.chunk_noise import ProgressiveNoise, StartNoise
from jaxvid.errors import UserError
from jaxvid.memory.bank_config import BankConfig
from jaxvid.models.text import TextConfig
from jaxvid.objectives.flow_matching import FlowConfig
from jaxvid.tasks import evaluate, generate, train
from jaxvid.tasks.steering import Switching
from jaxvid.training import loop
from jaxvid.training.block_config import BlockConfig, BlockData

BANK = BankConfig(tau=0.9, retrieved=1, capacity=5, recent_probes=2)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  return tiny_bundle.write(tmp_path_factory.mktemp('weights'))


def _text(weights):
  head = json.loads((weights.parent / 'model/config.json').read_text())
  return TextConfig(**head['config']['text'])


def _cache(folder):
  shape = (4, 2, 4, 16)
  rng = np.random.default_rng(0)
  rows = [
    {
      'latents': np.float16(rng.standard_normal(shape)),
      'captions': ['a red circle', 'a blue square'],
      'scene': '{}',
    }
    for _ in range(4)
  ]
  shards.prepare(folder, {})
  latents.write_shard(folder, 0, shape, rows)


# Captions of the shapes world are longer than the tiny model's text.
@pytest.mark.filterwarnings('ignore:the prompt has')
def test_a_model_is_trained_exported_and_measured(weights, tmp_path):
  _cache(tmp_path / 'cache')
  folder = weights.parent
  block = BlockConfig(
    dit=tiny_bundle.DIT,
    text=_text(weights),
    tokenizer=str(folder / 'tokenizer'),
    weights=str(folder / 'model'),
    chunk=2,
    data=BlockData(str(tmp_path / 'cache'), 2, 4),
    flow=FlowConfig('teacher', 2),
    rising=ProgressiveNoise(),
    size=(2, 4),
    window=4,
    bank=BANK,
    scan=True,
  )
  config = train.Config(
    workdir=str(tmp_path / 'run'),
    export=str(tmp_path / 'weights'),
    export_dtype='float32',
    loop=loop.LoopConfig(steps=2, log_every=1),
    block=block,
  )
  train.run(config)
  head = json.loads((tmp_path / 'weights/config.json').read_text())['config']
  assert head['memory']['bank']['retrieved'] == 1
  _measure(weights, tmp_path)


def _measure(weights, tmp_path):
  folder, target = weights.parent, tmp_path / 'report.json'
  stream = generate.Config(
    weights=str(tmp_path / 'weights'),
    decoder='tae',
    schedule='euler',
    steps=1,
    sink=0,
    window=6,
    bank=BANK,
    noise=StartNoise(4, True),
    switch=Switching(cache='keep'),
    seconds=5.0,
  )
  evaluate.run(
    evaluate.Config(
      stream,
      evaluate.Parts(
        str(folder / 'tokenizer'), '', str(folder / 'tae'), (16, 32)
      ),
      clips=2,
      script='returning',
      batch=2,
      workers=0,
      probe_every=0,
      details=True,
      output=str(target),
    )
  )
  report = json.loads(target.read_text())
  assert report['clips'] == 2
  values = report['values']['clips']
  assert len(values['right']) == len(values['vde_paper_subject']) == 2
  assert values['vde_clarity'][0] is not None


def _generate(weights, target: pathlib.Path, **options):
  config = generate.Config(
    prompt='a red circle',
    decoder='tae',
    weights=str(weights),
    output=str(target),
    sink=0,
    window=6,
    seconds=2.0,
    **options,
  )
  generate.run(config)
  return len(video.read_video(str(target), 16, 32))


def test_restarted_chunks_and_scripts_make_videos(weights, tmp_path):
  script = tmp_path / 'script.jsonl'
  script.write_text(
    '{"time": 0, "prompt": "a red circle"}\n'
    '{"time": 1, "prompt": "a blue square"}\n'
  )
  options = {'schedule': 'euler', 'steps': 1, 'guidance': 2.0, 'bank': BANK}
  frames = _generate(
    weights,
    tmp_path / 'a.mp4',
    restart=True,
    switch=Switching(cache='keep', script=str(script)),
    **options,
  )
  assert frames == 33


def test_chunks_in_flight_make_videos(weights, tmp_path):
  frames = _generate(
    weights, tmp_path / 'a.mp4', schedule='magi', steps=2, flight=2
  )
  assert frames == 33


@pytest.mark.parametrize(
  'options, message',
  [
    ({'chunk': 1, 'window': 2}, 'at least 2 latents'),
    ({'schedule': 'magi'}, 'magi'),
    ({'switch': Switching(live=True)}, "switch.cache='keep'"),
  ],
)
def test_what_does_not_go_with_restarted_chunks(weights, options, message):
  with pytest.raises(UserError, match=message):
    generate.check(
      generate.Config(
        prompt='a circle',
        weights=str(weights),
        decoder='tae',
        restart=True,
        **options,
      )
    )
