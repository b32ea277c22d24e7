"""Captions by a (stub) vision model, and what two annotators say of them."""

import http.client
import json
import math
import threading

import chat_endpoint
import numpy as np
import pytest

from jaxvid.data import video
from jaxvid.data.chat import ChatConfig
from jaxvid.data.videos import describe, review, review_server, work
from jaxvid.data.videos.describe import DescribeConfig
from jaxvid.data.videos.review import Answer, Item
from jaxvid.errors import UserError
from jaxvid.tasks import review as review_task
from jaxvid.tasks import videos as task

NAME = 'a b.mp4'


def make_target(tmp_path, captions=('', '', '')):
  """A working folder with one clip of three chunks, as `work` leaves it."""
  target = tmp_path / 'out'
  clip = {
    'id': f'{NAME}#000010',
    'start': 10,
    'end': 34,
    'motion': 0.1,
    'aesthetic': 0.5,
    'chunks': [[10, 18], [18, 26], [26, 34]],
    'captions': list(captions),
  }
  (target / 'records').mkdir(parents=True)
  record = {'file': NAME, 'clips': [clip], 'state': [0, 0]}
  path = target / 'records' / f'{work.key(NAME)}.json'
  path.write_text(json.dumps(record))
  (target / work.SETTINGS).write_text('{"clips": {"fps": 16}}')
  # Every chunk has a brightness of its own.
  level = np.repeat([40, 120, 200], 8)[:, None, None, None]
  frames = np.broadcast_to(level, (24, 48, 64, 3)).astype(np.uint8)
  with video.writer(work.clip_path(target, clip)) as write:
    write(frames)
  return target, clip


@pytest.fixture
def endpoint():
  """A vision model that numbers its answers; `story` is its alignment."""

  with chat_endpoint.serve() as served:

    def reply(body):
      if body['messages'][0]['content'] == describe.STORY:
        return served.story
      return f'"Scene {len(served.asked)}.\n"'

    served.reply = reply
    served.story = '```json\n["One.", "Two.", "Three."]\n```'
    chat = ChatConfig(served.url, 'stub')
    served.config = DescribeConfig(chat=chat, side=32)
    yield served


def test_chunks_are_described_in_turn_and_aligned(tmp_path, endpoint):
  target, clip = make_target(tmp_path)
  assert describe.wants(clip, endpoint.config)
  said = describe.describe(target, clip, endpoint.config)
  assert said == ['One.', 'Two.', 'Three.']
  kept = json.loads(describe.path_of(target, clip).read_text())
  assert kept['raw'] == ['Scene 1.', 'Scene 2.', 'Scene 3.']
  assert kept['aligned'] and len(endpoint.asked) == 4
  first, second = (b['messages'][1]['content'] for b in endpoint.asked[:2])
  assert 'previous frame' not in first[0]['text']
  assert 'described as: "Scene 1."' in second[0]['text']
  assert 'one coherent paragraph' in second[0]['text']
  assert first[1]['image_url']['url'].startswith('data:image/jpeg;base64,')
  assert json.loads(endpoint.asked[3]['messages'][1]['content']) == kept['raw']
  # Asked once only.
  assert describe.describe(target, clip, endpoint.config) == said
  assert len(endpoint.asked) == 4


def test_key_frames_come_from_their_chunks(tmp_path):
  target, clip = make_target(tmp_path)
  for count in (1, 3):
    found = describe.key_frames(target, clip, count)
    assert [len(pictures) for pictures in found] == [count] * 3
    for pictures, level in zip(found, (40, 120, 200), strict=True):
      assert all(abs(float(p.mean()) - level) < 6 for p in pictures)
  picture = describe.jpeg(np.zeros((100, 200, 3), np.uint8), 50)
  assert picture[:2] == b'\xff\xd8'


@pytest.mark.parametrize(
  'story', ['I cannot.', '["One."]', '["a", "b", 3]', '[1', '["", "b", "c"]']
)
def test_a_bad_story_leaves_the_captions_as_they_were(
  story, tmp_path, endpoint
):
  target, clip = make_target(tmp_path)
  endpoint.story = story
  said = describe.describe(target, clip, endpoint.config)
  assert said == ['Scene 1.', 'Scene 2.', 'Scene 3.']


def test_a_refusal_ends_the_job_and_keeps_what_was_said(
  tmp_path, endpoint, capsys
):
  target, clip = make_target(tmp_path)
  endpoint.limit = 2
  config = task.Config(
    source='in', target=str(target), describe=endpoint.config
  )
  with pytest.raises(UserError, match='says 403'):
    task.describe(config, [clip])
  assert not describe.path_of(target, clip).exists()
  endpoint.limit = 10**6
  task.describe(config, [clip])
  asked = len(endpoint.asked)
  task.describe(config, [clip])
  assert len(endpoint.asked) == asked
  kept, _ = task.collect(config, [{'file': NAME, 'clips': [clip]}])
  assert kept[0]['captions'] == ['One.', 'Two.', 'Three.']


def test_given_captions_are_not_asked_for_again(tmp_path, endpoint):
  _, clip = make_target(tmp_path, ('a', 'b', 'c'))
  assert not describe.wants(clip, endpoint.config)
  config = DescribeConfig(chat=endpoint.config.chat, always=True)
  assert describe.wants(clip, config)


def test_kappa_of_textbook_tables():
  """Cohen (1960): (p_o - p_e) / (1 - p_e)."""
  one = [True] * 25 + [False] * 25
  two = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
  assert review.kappa(one, two) == pytest.approx(0.4)
  assert review.kappa(one, one) == 1
  assert review.kappa([True, False], [False, True]) == -1
  assert math.isnan(review.kappa([], []))
  assert math.isnan(review.kappa([True] * 3, [True] * 3))
  assert review.kappa([True] * 3, [True, True, False]) == 0


def put(target, name, item, good, text='', time=0.0):
  review.append(review.path_of(target, name), item, Answer(good, text, time))


def test_reviews_reject_mend_and_agree(tmp_path):
  target, clip = make_target(tmp_path, ('a', 'b', 'c'))
  whole = Item(clip['id'], 'clip')
  chunk, caption = (Item(clip['id'], k, 1) for k in ('chunk', 'caption'))
  put(target, 'anna', whole, True)
  put(target, 'anna', chunk, False)
  put(target, 'anna', chunk, True)  # She thought again.
  put(target, 'anna', caption, False, 'better', time=1.0)
  put(target, 'ben', whole, False)
  put(target, 'ben', chunk, True)
  put(target, 'ben', caption, True, 'best', time=2.0)
  path = review.path_of(target, 'ben')
  with path.open('ab') as file:
    file.write(b'{"clip": "cut off by a ki')
  put(target, 'ben', Item('other', 'clip'), True)
  answers = review.read_all(target)
  assert len(answers['ben']) == 4 and answers['anna'][chunk].good
  found = review.agreement(answers)['anna', 'ben']
  assert found['clip'].items == 1 and found['clip'].share == 0
  assert found['chunk'].share == 1 and math.isnan(found['chunk'].kappa)
  record = {'file': NAME, 'clips': [clip]}

  def collected(rule):
    config = task.Config(source='in', target=str(target), reviews=rule)
    return task.collect(config, [record])

  kept, rejected = collected('any')
  assert not kept and rejected[0]['reason'] == 'review'
  assert rejected[0]['detail'] == 'the clip is not fit'
  kept, rejected = collected('all')
  assert kept[0]['captions'] == ['a', 'best', 'c'] and not rejected
  assert collected('ignore')[0][0]['captions'] == ['a', 'b', 'c']
  with pytest.raises(UserError, match='annotator may hold'):
    review.path_of(target, '../evil')


@pytest.fixture
def page(tmp_path):
  """The page of an annotator, running; yields (ask, target, clip)."""
  target, clip = make_target(tmp_path, ('a', 'b', 'c'))
  state = review_server.Review(str(target), 'anna')
  with review_server.server(state, 0) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def ask(method, path, body=None, **headers):
      connection = http.client.HTTPConnection('127.0.0.1', server.server_port)
      headers = {name.replace('_', '-'): v for name, v in headers.items()}
      connection.request(method, path, body, headers)
      response = connection.getresponse()
      data = response.read()
      connection.close()
      return response, data

    yield ask, target, clip
    server.shutdown()
    thread.join()


def test_the_page_shows_clips_and_keeps_answers(page):
  ask, target, clip = page
  response, data = ask('GET', '/')
  assert response.status == 200 and b'<html lang="en">' in data
  _, data = ask('GET', '/clips')
  (shown,) = json.loads(data)
  assert shown['id'] == clip['id'] and shown['mine'] == {}
  assert shown['chunks'][1] == {'start': 0.5, 'end': 1.0, 'caption': 'b'}
  answer = {'clip': clip['id'], 'kind': 'caption', 'chunk': 1, 'good': False}
  body = json.dumps(answer | {'text': 'mended'})
  response, _ = ask('POST', '/answer', body, Content_Type='application/json')
  assert response.status == 200
  said = review.read_all(target)['anna'][Item(clip['id'], 'caption', 1)]
  assert said.text == 'mended' and not said.good and said.time > 0
  _, data = ask('GET', '/clips')
  mine = json.loads(data)[0]['mine']
  assert mine == {'caption/1': {'good': False, 'text': 'mended'}}
  put(target, 'ben', Item(clip['id'], 'caption', 1), False)
  _, data = ask('GET', '/agreement')
  assert json.loads(data)[0]['share'] == 1.0


def test_players_may_ask_for_a_part_of_a_video(page):
  ask, target, clip = page
  path = '/video?clip=' + clip['id'].replace(' ', '%20').replace('#', '%23')
  whole = work.clip_path(target, clip).read_bytes()
  response, data = ask('GET', path)
  assert response.status == 200 and data == whole
  response, data = ask('GET', path, Range='bytes=5-9')
  assert response.status == 206 and data == whole[5:10]
  assert response.headers['Content-Range'] == f'bytes 5-9/{len(whole)}'
  response, data = ask('GET', path, Range='bytes=9-')
  assert response.status == 206 and data == whole[9:]
  for other in ('/video?clip=../../etc/passwd', '/etc/passwd', '/video'):
    assert ask('GET', other)[0].status == 404


def test_the_page_is_for_this_machine_and_for_answers_only(page):
  ask, target, clip = page
  assert ask('GET', '/clips', Host='evil.example:80')[0].status == 403
  good = {'clip': clip['id'], 'kind': 'clip', 'good': True}
  body = json.dumps(good)
  assert ask('POST', '/answer', body)[0].status == 403  # no JSON header
  bad = [b'{', b'[]', json.dumps(good | {'kind': 'x'})]
  bad += [json.dumps(good | {'clip': 'x'}), json.dumps(good | {'good': 1})]
  bad += [json.dumps(good | {'kind': 'chunk', 'chunk': 3})]
  for body in bad:
    kind = {'Content_Type': 'application/json'}
    assert ask('POST', '/answer', body, **kind)[0].status == 400
  assert not review.read_all(target)


def test_agreement_on_the_command_line(tmp_path, capsys):
  target, clip = make_target(tmp_path)
  review_task.run(review_task.Config(target=str(target)))
  assert 'no clip was judged by two' in capsys.readouterr().out
  for name in ('anna', 'ben'):
    put(target, name, Item(clip['id'], 'clip'), True)
  review_task.run(review_task.Config(target=str(target)))
  out = capsys.readouterr().out
  assert 'anna, ben: clip' in out and 'kappa undefined' in out
  with pytest.raises(UserError, match='holds no clips'):
    review_task.run(review_task.Config(target=str(tmp_path), annotator='a'))
