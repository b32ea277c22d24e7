"""Scripts of prompts: every format, every mistake."""

import json

import pytest

from jaxvid.data import prompt_script
from jaxvid.data.prompt_script import by_chunk, read_script
from jaxvid.errors import UserError

CUES = [{'prompt': 'a'}, {'time': 2.0, 'prompt': 'b'}]
FORMS = {
  'a.jsonl': '\n'.join(map(json.dumps, CUES)) + '\n',
  'b.yaml': '- prompt: a\n- {time: 2, prompt: b}\n',
  'c.json': json.dumps({'prompts': ['a', 'b'], 'times': [0, 2]}),
  'd.jsonl': json.dumps({'prompts': ['x']})
  + '\n'
  + json.dumps({'prompts': ['a', 'b'], 'times': [0, 2.0]}),
}


@pytest.mark.parametrize('name', FORMS)
def test_every_format_says_the_same(name, tmp_path):
  path = tmp_path / name
  path.write_text(FORMS[name])
  cues = read_script(path, line=1 if name == 'd.jsonl' else 0)
  assert [(c.prompt, c.latent, c.when) for c in cues] == [
    ('a', 0.0, '0 s'),
    ('b', (16 * 2 + 3) / 4, '2 s'),
  ]


def test_the_published_format(tmp_path):
  """Lines of prompts; their latent frames stand in the settings."""
  path = tmp_path / 'interactive.jsonl'
  lines = [{'prompts': [f'{i}{c}' for c in 'abcdef']} for i in range(12)]
  path.write_text('\n'.join(map(json.dumps, lines)))
  frames = (40, 80, 120, 160, 200)
  cues = read_script(path, 3, frames)
  assert [c.prompt for c in cues] == ['3a', '3b', '3c', '3d', '3e', '3f']
  # A switch asked for at latent 40 takes effect at latent 42.
  assert list(by_chunk(cues, 3, 80)) == [0, 14, 27, 40, 54, 67]
  with pytest.raises(UserError, match='no line 12; it holds 12 videos'):
    read_script(path, 12, frames)
  with pytest.raises(UserError, match='6 prompts need 5 frames, not 0'):
    read_script(path)


@pytest.mark.parametrize('fresh', [True, False])
def test_times_are_those_of_the_frames(fresh, tmp_path):
  """Chunk i begins at frame 12 i - 3; after given latents at 12 i."""
  for chunk in range(1, 5):
    seconds = prompt_script.seconds_at(3 * chunk, fresh)
    assert seconds == (12 * chunk - (3 if fresh else 0)) / 16
    for late, expected in ((0.0, chunk), (0.01, chunk + 1)):
      latent = prompt_script.latent_at(seconds + late, fresh)
      cue = prompt_script.Cue('a', latent, '')
      assert prompt_script.chunk_of(cue, 3) == expected


def test_written_scripts_read_back(tmp_path):
  cues = [prompt_script.Cue(p, 3.0 * i, '') for i, p in enumerate('äbc')]
  prompt_script.write_script(tmp_path / 's.jsonl', cues)
  again = read_script(tmp_path / 's.jsonl')
  assert by_chunk(again, 3, 9) == {0: 'ä', 1: 'b', 2: 'c'}


@pytest.mark.parametrize(
  'text, words',
  [
    ('', 'no prompt'),
    ('[]', 'cue 1 has no prompt'),
    ('{"time": 1}', 'cue 1 has no prompt'),
    ('{"prompt": ""}', 'prompt is empty'),
    ('{"prompt": 3}', '3 is no prompt'),
    ('{"prompt": "a", "time": "soon"}', "'soon' of cue 1 is no number"),
    ('{"prompt": "a", "time": -1}', 'must be 0 or more'),
    ('{"prompt": "a", "time": 2}\n{"prompt": "b", "time": 1}', '1 s does not'),
    ('{"prompt": "a"}\n{"prompt": "b"}', '0 s does not come after'),
    ('{"prompts": []}', 'no prompt'),
    ('{"prompts": "a"}', 'prompts is no list'),
    ('{"prompts": ["a"], "times": 3}', '1 prompts need 1 times, not 3'),
    ('{"prompts": ["a", "b"], "frames": ["x"]}', 'whole numbers'),
    ('{nonsense', 'cannot read script'),
  ],
)
def test_mistakes_are_one_line(text, words, tmp_path):
  path = tmp_path / 's.jsonl'
  path.write_text(text)
  with pytest.raises(UserError, match=words) as caught:
    read_script(path)
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_broken_yaml_and_missing_files_are_one_line(tmp_path):
  (tmp_path / 's.yaml').write_text('- [a\n b: {')
  for name, words in (
    ('s.yaml', 'cannot read'),
    ('none.yaml', 'No such file'),
    ('s.txt', 'not from'),
  ):
    with pytest.raises(UserError, match=words) as caught:
      read_script(tmp_path / name)
    assert '\n' not in str(caught.value)


def test_times_beyond_the_end_or_too_close_are_refused():
  def cues(*seconds):
    return [
      prompt_script.Cue('a', prompt_script.latent_at(s), f'{s} s')
      for s in seconds
    ]

  with pytest.raises(UserError, match=r'5\.2 s is beyond .* \(5\.0625 s\)'):
    by_chunk(cues(0.0, 5.2), 3, 7)
  assert by_chunk(cues(0.0, 5.2), 3, None) == {0: 'a', 8: 'a'}
  with pytest.raises(UserError, match=r'1\.0 s and 1\.1 s take effect at'):
    by_chunk(cues(0.0, 1.0, 1.1), 3, 7)
