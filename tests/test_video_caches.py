"""Latents and text embeddings of a video data set."""

import json
import shutil

import numpy as np
import pytest

from jaxvid.data import latents, video
from jaxvid.data.shapes.scene import SceneSettings
from jaxvid.data.videos import dataset, windows, work
from jaxvid.errors import UserError
from jaxvid.tasks import embeddings as embeddings_task
from jaxvid.tasks import latents as latents_task


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """A data set of two clips, 66 and 34 frames in chunks of 17."""
  target = tmp_path_factory.mktemp('target')
  clips = []
  for number, frames in enumerate((66, 34)):
    edges = list(range(0, frames - 16, 17))
    clip = {
      'id': f'v{number}.mp4#000000',
      'start': 0,
      'end': frames,
      'motion': 0.1,
      'aesthetic': 0.5,
      'chunks': [[a, a + 17] for a in edges],
      'captions': [f'a red circle, part {a}' for a in edges],
    }
    level = np.arange(frames, dtype=np.uint8) * 3
    images = np.zeros((frames, 64, 64, 3), np.uint8)
    images += level[:, None, None, None]
    with video.writer(work.clip_path(target, clip)) as write:
      write(images)
    clips.append(clip)
  place, new = dataset.build(str(target), 'x', {'train': clips})
  assert new
  return place


def test_the_same_content_is_not_written_again_and_other_content_is(
  videos, tmp_path
):
  shutil.copytree(videos.parents[2], tmp_path / 'copy')
  target = str(tmp_path / 'copy')
  clips = [
    json.loads(json.dumps(clip))
    for clip in (
      {
        'id': 'v1.mp4#000000',
        'start': 0,
        'end': 34,
        'motion': 0.1,
        'aesthetic': 0.5,
        'chunks': [[0, 17], [17, 34]],
        'captions': ['one', 'two'],
      },
    )
  ]
  place, new = dataset.build(target, 'x', {'train': clips, 'validation': []})
  assert new and len(dataset.open_source(place)) == 1
  assert not dataset.build(target, 'x', {'train': clips, 'validation': []})[1]
  assert not (tmp_path / 'copy' / '.building').exists()


def test_windows_start_with_chunks_and_do_not_overlap(videos):
  found = windows.Windows.open(videos, 'train', 17)
  assert len(found) == 3 + 2
  long = windows.Windows.open(videos, 'train', 33, chunk=3)
  assert len(long) == 2
  by_clip = {}
  for i in range(len(found)):
    item = found[i]
    facts = json.loads(item['script'])
    assert item['video'].shape == (17, 64, 64, 3)
    assert abs(float(item['video'][0].mean()) - 3 * facts['start']) < 4
    assert item['captions'] == [f'a red circle, part {facts["start"]}']
    by_clip.setdefault(facts['clip'], []).append(facts['start'])
  assert by_clip['v0.mp4#000000'] == [0, 17, 34]
  item = long[0]
  # Latent chunks of 3 start at frames 0, 9 and 21; the second chunk at 17.
  assert item['captions'] == [
    'a red circle, part 0',
    'a red circle, part 0',
    'a red circle, part 17',
  ]
  with pytest.raises(UserError, match='no clip of 99 frames'):
    windows.Windows.open(videos, 'train', 99)


def test_latents_of_videos_are_cached(videos, tmp_path):
  config = latents_task.Config(
    vae='jaxvid/weights/shapes_vae',
    target=str(tmp_path / 'latents'),
    videos=str(videos),
    frames=17,
    shard=4,
    batch=2,
    scenes=SceneSettings(),
  )
  latents_task.run(config)
  sources = latents.open_shards(config.target)
  assert [len(source) for source in sources] == [4, 1]
  example = sources[0][0]
  assert example['latents'].shape[0] == 5
  assert latents.read_captions(example)[0].startswith('a red circle, part')
  assert json.loads(example['scene'])['chunks'][0]['start'] == 0
  latents_task.run(config)  # Finds all of it done.
  assert len(latents.open_shards(config.target)) == 2


def test_texts_are_encoded_once(videos, tmp_path, monkeypatch):
  from jaxvid.data import embeddings

  class Bundle:
    def need(self, kind):
      return kind

    def place(self, kind, dtype):
      return {'w': np.ones(3, np.float32)}

    def configure(self, kind):
      class Text:
        dim = 6

      return Text

    def tokenizer(self):
      return lambda texts: (
        np.array([[len(t)] * 9 for t in texts], np.int32),
        np.arange(9) < np.array([[len(t) % 7 + 1] for t in texts]),
      )

  from jaxvid.models import text as text_lib
  from jaxvid.tasks import bundle

  def encode(config, params, ids, mask):
    return (ids * mask)[..., None] * np.ones(6, np.float32)

  monkeypatch.setattr(bundle, 'open_bundle', lambda weights: Bundle())
  monkeypatch.setattr(text_lib, 'encode', encode)
  config = embeddings_task.Config(
    weights='x',
    target=str(tmp_path / 'text'),
    videos=str(videos),
    shard=2,
    batch=3,
  )
  embeddings_task.run(config)
  found = embeddings.Embeddings(tmp_path / 'text')
  texts = ['', *(f'a red circle, part {17 * i}' for i in range(3))]
  assert sorted(found) == sorted(texts)
  for text in texts:
    assert found[text].shape == (len(text) % 7 + 1, 6)
    assert (found[text] == len(text)).all()
  batch = found.batch(texts[:2], 8)
  assert batch.shape == (2, 8, 6) and not batch[0, 1:].any()
  with pytest.raises(UserError, match='no embedding of'):
    found.batch(['what'], 8)
  (tmp_path / 'more.txt').write_text('a red circle, part 0\na new text\n')
  more = embeddings_task.Config(
    weights='x',
    target=str(tmp_path / 'text'),
    prompts=embeddings_task.PromptConfig(file=str(tmp_path / 'more.txt')),
  )
  embeddings_task.run(more)
  assert len(embeddings.Embeddings(tmp_path / 'text')) == 5
  with pytest.raises(UserError, match='give videos'):
    embeddings_task.Config(weights='x', target='y')
