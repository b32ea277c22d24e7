"""Prompt lists: read, filtered, extended by a (stub) language model."""

import csv
import json

import chat_endpoint
import pytest

from jaxvid.data import chat, prompts
from jaxvid.data.chat import ChatConfig
from jaxvid.data.prompts import FilterConfig, Row
from jaxvid.errors import UserError
from jaxvid.tasks import prompts as task

VIDPROM = ('uuid', 'prompt', 'time', *prompts.UNSAFE)


def vidprom(path, rows):
  """Writes rows of (prompt, sexual_explicit) as VidProM does."""
  with path.open('w', newline='', encoding='utf-8') as file:
    table = csv.DictWriter(file, VIDPROM)
    table.writeheader()
    for i, (prompt, unsafe) in enumerate(rows):
      zeros = dict.fromkeys(prompts.UNSAFE, 1e-4)
      zeros['sexual_explicit'] = unsafe
      table.writerow({'uuid': i, 'prompt': prompt, 'time': 'Mon', **zeros})
  return path


def test_all_layouts_give_the_same_prompts(tmp_path):
  texts = ['a red fox, running', 'two "old" friends\nin the rain']
  vidprom(tmp_path / 'a.csv', [(text, 0.2) for text in texts])
  objects = [{'prompts': 'no', 'prompt': text} for text in texts]
  (tmp_path / 'b.json').write_text(json.dumps(objects))
  lines = [json.dumps(text) for text in objects]
  (tmp_path / 'c.jsonl').write_text('\n'.join(lines) + '\n\n')
  plain = [' '.join(text.split()) for text in texts]
  (tmp_path / 'd.txt').write_text('\ufeff' + '\r\n\n'.join(plain))
  (tmp_path / 'e.json').write_text(json.dumps(texts))
  for name in ('a.csv', 'b.json', 'c.jsonl', 'd.txt', 'e.json'):
    assert prompts.read_prompts(tmp_path / name) == plain, name
  assert [row.unsafe for row in prompts.read_rows(tmp_path / 'a.csv')] == [
    0.2
  ] * 2
  assert prompts.read_prompts(tmp_path / 'b.json', 'prompts') == ['no', 'no']


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.parquet', '', 'are read from .txt, .csv'),
    ('a.csv', 'uuid,words\n1,hello\n', r'no column extended, prompt.*uuid'),
    ('a.jsonl', '{"prompt": "a"}\n{"pro', 'cannot read prompts'),
    ('a.json', '{"prompt": "a"}', 'no JSON list'),
    ('a.jsonl', '3', 'neither a text nor an object'),
    ('a.txt', '\n \n', 'holds no prompt'),
  ],
)
def test_what_is_no_prompt_list_is_said_in_one_line(
  name, content, message, tmp_path
):
  (tmp_path / name).write_text(content)
  with pytest.raises(UserError, match=message):
    prompts.read_prompts(tmp_path / name)
  with pytest.raises(UserError, match='No such file'):
    prompts.read_prompts(tmp_path / 'nothing.txt')


@pytest.mark.parametrize(
  ('prompt', 'unsafe', 'why'),
  [
    ('a dog runs along the beach', 0.0, ''),
    ('cyberpunk city, neon lights, rain', 0.0, ''),
    ('hello world', 0.0, 'short'),
    ('word ' * 121, 0.0, 'long'),
    ('a dog runs along the beach', 0.5, 'unsafe'),
    ('一只猫在草地上行走 走 走', 0.0, 'characters'),
    ('un perro corre por la playa con un amigo', 0.0, 'language'),
    ('ein Hund läuft mit dem Ball auf den Strand', 0.0, 'language'),
  ],
)
def test_what_is_left_out(prompt, unsafe, why):
  assert prompts.fault(Row(prompt, unsafe), FilterConfig()) == why


def test_filtering_tidies_counts_and_keeps_the_order():
  rows = [
    Row('A fox, running fast -ar 16:9 -motion 2'),
    Row('a cat on a well-known   sofa --hd'),
    Row('a FOX running; fast!'),
    Row('bad words in here', 0.9),
  ]
  kept, gone = prompts.filtered(rows, FilterConfig())
  assert kept == ['A fox, running fast', 'a cat on a well-known sofa']
  assert gone == {'duplicate': 1, 'unsafe': 1}
  again = FilterConfig(duplicates=False, max_unsafe=1.0)
  assert len(prompts.filtered(rows, again)[0]) == 4


def test_samples_are_different_prompts_in_order():
  texts = [f'{i:03}' for i in range(100)]
  some = prompts.sample(texts, 10, seed=1)
  assert some == sorted(set(some)) != texts[:10]
  assert some == prompts.sample(texts, 10, seed=1)
  assert prompts.sample(texts, 0, seed=1) == texts
  with pytest.raises(UserError, match='101 prompts are asked for, 100'):
    prompts.sample(texts, 101, seed=1)


@pytest.fixture
def endpoint():
  with chat_endpoint.serve() as served:
    yield served


def settings(endpoint, **changes):
  parts = {'base_url': endpoint.url, 'model': 'stub', 'backoff': 0.5}
  return ChatConfig(**(parts | changes))


def test_a_request_is_what_openai_expects(endpoint, monkeypatch):
  monkeypatch.setenv('SOME_KEY', 'secret')
  config = settings(endpoint, api_key_env='SOME_KEY', temperature=0.3)
  assert chat.ask(config, 'Do this.', 'a cat') == '"A CAT\n"'
  assert endpoint.keys == ['Bearer secret']
  assert endpoint.asked == [
    {
      'model': 'stub',
      'messages': [
        {'role': 'system', 'content': 'Do this.'},
        {'role': 'user', 'content': 'a cat'},
      ],
      'temperature': 0.3,
      'max_tokens': 512,
    }
  ]


def test_busy_servers_are_asked_again_later_and_later(endpoint):
  busy = [(503, {}, 'busy'), (429, {'Retry-After': '7'}, ''), (200, {}, 'no')]
  endpoint.faults['a cat'] = [*busy, (500, {}, '')]
  waits = []
  assert chat.ask(settings(endpoint), '', 'a cat', waits.append) == '"A CAT\n"'
  assert len(endpoint.asked) == 5
  assert 0.25 <= waits[0] <= 0.5 and waits[1] == 7
  assert 1 <= waits[2] <= 2 <= waits[3] <= 4


def test_servers_that_stay_busy_or_away_are_given_up(endpoint):
  endpoint.faults['a cat'] = [(503, {}, 'busy')] * 3
  with pytest.raises(UserError, match='failed 3 times: 503 busy'):
    chat.ask(settings(endpoint, retries=2), '', 'a cat', lambda wait: None)
  away = settings(endpoint, base_url='http://127.0.0.1:9/v1', retries=0)
  with pytest.raises(UserError, match=r'failed 1 times: .*refused'):
    chat.ask(away, '', 'a cat')


@pytest.mark.parametrize(
  ('fault', 'message'),
  [
    ((401, {}, '{"error": {"message": "bad key"}}'), 'says 401 bad key'),
    ((404, {}, 'no such page'), 'says 404 no such page'),
    ((200, {}, '{"data": []}'), 'is no chat endpoint'),
  ],
)
def test_requests_at_fault_are_not_repeated(fault, message, endpoint):
  endpoint.faults['a cat'] = [fault]
  with pytest.raises(UserError, match=message):
    chat.ask(settings(endpoint), '', 'a cat', pytest.fail)
  assert len(endpoint.asked) == 1


def test_impossible_endpoints(monkeypatch):
  monkeypatch.delenv('SOME_KEY', raising=False)
  with pytest.raises(UserError, match=r'SOME_KEY .* is not set'):
    chat.read_key(ChatConfig(api_key_env='SOME_KEY'))
  with pytest.raises(UserError, match='must begin with http'):
    ChatConfig(base_url='localhost')
  with pytest.raises(UserError, match='backoff'):
    ChatConfig(backoff=-1.0)


@pytest.fixture
def listed(tmp_path):
  """A list of 12 prompts, one of them unsafe."""
  rows = [(f'a fox and number {i}', 0.0) for i in range(11)]
  return vidprom(tmp_path / 'list.csv', [*rows, ('a fox and worse', 0.9)])


def config_of(listed, endpoint, target='out.jsonl', workers=3, **changes):
  return task.Config(
    source=str(listed),
    target=str(listed.parent / target),
    chat=settings(endpoint, retries=1, backoff=0.0),
    workers=workers,
    **changes,
  )


def test_the_target_holds_every_prompt_in_order(listed, endpoint, capsys):
  config = config_of(listed, endpoint)
  task.run(config)
  lines = (listed.parent / 'out.jsonl').read_text().splitlines()
  texts = [f'a fox and number {i}' for i in range(11)]
  assert [json.loads(line) for line in lines] == [
    {'prompt': text, 'extended': text.upper()} for text in texts
  ]
  assert sorted(endpoint.texts()) == sorted(texts)
  printed = capsys.readouterr()
  assert '11 prompts stay, 1 go (unsafe 1)' in printed.err
  assert printed.out.strip().endswith('out.jsonl: 11 prompts')
  assert {path.name for path in listed.parent.iterdir()} == {
    'list.csv',
    'out.jsonl',
  }
  # What training reads from it, and from a plain list.
  extended = prompts.read_prompts(listed.parent / 'out.jsonl')
  task.run(config_of(listed, endpoint, 'out.txt'))
  plain = prompts.read_prompts(listed.parent / 'out.txt')
  assert extended == plain == [text.upper() for text in texts]


def test_a_job_that_died_goes_on_where_it_was(listed, endpoint, capsys):
  config = config_of(listed, endpoint, workers=1)
  endpoint.limit = 5
  with pytest.raises(UserError, match='says 403 no more money'):
    task.run(config)
  part = listed.parent / 'out.jsonl.part'
  assert part.exists() and not (listed.parent / 'out.jsonl').exists()
  assert len(part.read_text().splitlines()) == 1 + 5
  with part.open('ab') as file:  # killed in the middle of a line
    file.write(b'["a fox and num')
  other = config_of(listed, endpoint, instruction='something else')
  with pytest.raises(UserError, match='another model or instruction'):
    task.run(other)
  endpoint.limit, endpoint.asked[:] = 10**6, []
  task.run(config)
  assert len(endpoint.asked) == 11 - 5
  assert '5 of 11 prompts were extended' in capsys.readouterr().err
  lines = (listed.parent / 'out.jsonl').read_text().splitlines()
  assert [json.loads(line)['prompt'] for line in lines] == [
    f'a fox and number {i}' for i in range(11)
  ]
  assert not part.exists()


def test_prompts_without_an_answer_stay_as_they_were(listed, endpoint, capsys):
  silent = json.dumps({'choices': [{'message': {'content': None}}]})
  endpoint.faults['a fox and number 4'] = [(200, {}, silent)]
  task.run(config_of(listed, endpoint, 'out.txt'))
  lines = (listed.parent / 'out.txt').read_text().splitlines()
  assert lines[3:5] == ['A FOX AND NUMBER 3', 'a fox and number 4']
  assert '1 prompts had no answer' in capsys.readouterr().err


def test_without_a_model_nothing_is_asked(listed, endpoint):
  config = task.Config(str(listed), str(listed.parent / 'o.txt'), count=5)
  task.run(config)
  lines = (listed.parent / 'o.txt').read_text().splitlines()
  assert len(set(lines)) == 5 and not endpoint.asked


def test_impossible_jobs(listed):
  for changes, message in (
    ({'target': 'a.csv'}, 'must be a .txt or .jsonl'),
    ({'target': 'a.txt', 'workers': 0}, 'workers >= 1'),
    ({'target': 'a.txt', 'filter': 0}, 'min_words must be from 1'),
  ):
    with pytest.raises(UserError, match=message):
      if 'filter' in changes:
        changes = {**changes, 'filter': FilterConfig(min_words=0)}
      task.Config(source=str(listed), **changes)
  strict = task.Config(
    str(listed), str(listed.parent / 'a.txt'), filter=FilterConfig(min_words=99)
  )
  with pytest.raises(UserError, match=r'nothing of .* is left'):
    task.run(strict)


def _follow(text: str) -> str:
  """What a model that keeps to the template answers to one prompt."""
  return json.dumps(
    {'choices': [{'message': {'content': f'So:\n<OUTPUT>{text}</OUTPUT>\n'}}]}
  )


@pytest.fixture
def storyteller(listed, endpoint):
  """Answers `x, then 1` to `x`; number 4 answers nonsense, twice."""
  for i in range(11):
    before = f'a fox and number {i}'
    for scene in range(1, 3):
      after = f'a fox and number {i}, then {scene}'
      said = f'ORIGINAL_PROMPT: {before}'
      # More than once: prompts are asked anew for another target.
      endpoint.faults[said] = [(200, {}, _follow(after))] * 3
      before = after
  said = 'ORIGINAL_PROMPT: a fox and number 4'
  good = endpoint.faults[said][0]
  nonsense = json.dumps({'choices': [{'message': {'content': 'Sure!'}}]})
  endpoint.faults[said] = [(200, {}, nonsense), (200, {}, nonsense), good]
  return endpoint


def test_follow_ups_stand_line_by_line(listed, storyteller):
  config = config_of(listed, storyteller, 'out.txt', kind='switch')
  task.run(config)
  lines = (listed.parent / 'out.txt').read_text().splitlines()
  assert lines == [f'a fox and number {i}, then 1' for i in range(11)]
  body = storyteller.asked[0]['messages'][0]['content']
  for fact in ('80 to 100', '<OUTPUT>', 'camera', 'Exactly one'):
    assert fact in body


def test_follow_ups_that_never_come_are_left_out(listed, storyteller, capsys):
  """A text line would have to stay; a pair need not."""
  config = config_of(listed, storyteller, kind='switch', tries=2)
  task.run(config)
  lines = (listed.parent / 'out.jsonl').read_text().splitlines()
  pairs = [json.loads(line) for line in lines]
  assert pairs[0] == {
    'prompt': 'a fox and number 0',
    'follow_up': 'a fox and number 0, then 1',
  }
  assert len(pairs) == 10
  assert '1 videos without all scenes are left out' in capsys.readouterr().err


def test_longer_stories_are_interactive_scripts(listed, storyteller):
  from jaxvid.data import prompt_script

  config = config_of(listed, storyteller, kind='switch', scenes=3)
  task.run(config)
  cues = prompt_script.read_script(listed.parent / 'out.jsonl', 2, (40, 80))
  story = 'a fox and number 2'
  assert [cue.prompt for cue in cues] == [
    story,
    f'{story}, then 1',
    f'{story}, then 2',
  ]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'scenes': 1}, 'scenes must be >= 2'),
    ({'scenes': 3, 'target': 'a.txt'}, 'go to a .jsonl'),
    ({'kind': 'switch'}, 'needs a language model'),
  ],
)
def test_impossible_stories(listed, changes, message):
  with pytest.raises(UserError, match=message):
    task.Config(**({'source': str(listed), 'target': 'a.jsonl'} | changes))
