"""Students say how they were trained; other streams of them warn."""

import dataclasses

import pytest
import tiny_bundle

from jaxvid.diffusion import describe
from jaxvid.diffusion.describe import Spec
from jaxvid.errors import UserError, UserNotice
from jaxvid.memory import MemoryConfig
from jaxvid.storage import weights
from jaxvid.stream.stream import Settings
from jaxvid.tasks import bundle, generate, player, trained
from jaxvid.tasks.bundle import open_weights

MEMORY = {'chunk': 3, 'sink': 3, 'window': 9, 'positions': 'relative'}


def head(name='4322222', digits='', **spec):
  known = dataclasses.asdict(Spec(name, **spec))
  return {'schedule': known, 'digits': digits, 'memory': MEMORY}


def asked(name='4322222', commit='', sink=3, window=9, **spec):
  memory = MemoryConfig(2, 2, sink, window, 3, 'relative')
  schedule = describe.build(Spec(name, commit=commit, **spec))
  return Settings(tiny_bundle.DIT, memory, schedule)


@pytest.mark.parametrize(
  ('known', 'stream'),
  [
    (head(), asked()),
    (head(), asked('43222')),  # the same ticks for every chunk
    (head(commit='clean'), asked(commit='clean')),
    (head(digits='12345'), asked('5432222')),
    (head(digits='12345', commit='clean'), asked('1', 'clean')),
    ({'dit': {}}, asked()),
    ({**head('5'), 'digits': None, 'memory': None}, asked('43')),
  ],
)
def test_streams_as_trained(known, stream):
  known = {key: value for key, value in known.items() if value is not None}
  assert trained.difference(known, stream, 7) == ''


@pytest.mark.parametrize(
  ('known', 'stream', 'words'),
  [
    (
      head(),
      asked('5432222'),
      'schedule 4322222 (commit last), not 5432222 (commit last)',
    ),
    (head(), asked(commit='clean'), 'not 4322222 (commit clean)'),
    (head(), asked(cyclic=True), 'not 4322222 (commit last)'),
    (head(digits='123'), asked('42'), 'digits 123 (commit last), not 42'),
    (
      head(digits='12345'),
      asked(commit='extra(50)'),
      'extra tick at t 208.333',
    ),
    (head(digits='12345'), asked('self_forcing'), 'not self_forcing'),
    (head(), asked(sink=0, window=12), 'sink 3, window 9, not 0, 12'),
    (head(), asked('teacher'), '(no memory)'),
  ],
)
def test_other_streams(known, stream, words):
  text = trained.difference(known, stream, 14)
  assert words in text and '\n' not in text


@pytest.fixture(scope='module')
def student(tmp_path_factory):
  """A bundle whose weights say that 2 ticks were trained."""
  folder = tmp_path_factory.mktemp('weights')
  made = tiny_bundle.write(folder)
  config, params = weights.load(folder / 'model')
  weights.save(folder / 'model', params, {**config, **head('2')})
  return made


def test_the_main_job_warns_once(student, tmp_path, recwarn):
  def prepare(schedule):
    config = generate.Config(
      prompt='a red circle',
      weights=str(student),
      decoder='tae',
      schedule=schedule,
      seconds=0.5,
      positions='relative',
      output=str(tmp_path / 'a.mp4'),
    )
    player.prepare(config, generate.check(config))

  prepare('2')
  with pytest.warns(
    UserNotice, match='schedule 2 .commit last., not 3'
  ) as seen:
    prepare('3')
  assert len(seen) == 1 and str(student) in str(seen[0].message)


def test_weights_of_several_folders_make_a_model(student):
  folder = student.parent
  tokens, size = str(folder / 'tokenizer'), (16, 32)
  plain = open_weights(
    folder / 'model', tokens, size, {'tae': str(folder / 'tae')}
  )
  ours = bundle.open_bundle(str(student))
  assert plain.kinds == ours.kinds and plain.size == ours.size
  assert plain.head()['schedule'] == ours.head()['schedule']
  with pytest.raises(UserError, match="no tae at 'nowhere'"):
    open_weights(folder / 'model', tokens, size, {'tae': 'nowhere'})


def test_a_run_without_a_text_encoder_says_so(student, tmp_path):
  folder = student.parent
  config, params = weights.load(folder / 'model')
  del params['text']
  weights.save(tmp_path / 'dit', {**params, 'motion': {}}, config)
  tokens, size = str(folder / 'tokenizer'), (16, 32)
  alone = open_weights(tmp_path / 'dit', tokens, size)
  assert set(alone.read('dit')) == set(params['dit'])
  with pytest.raises(UserError, match=r'holds no text \(it holds dit\)'):
    alone.read('text')
  both = open_weights(
    tmp_path / 'dit', tokens, size, {'text': str(folder / 'model')}
  )
  assert both.read('text')
