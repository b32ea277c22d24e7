"""The review page: a small web server for this machine alone."""

import functools
import http.server
import json
import math
import pathlib
import re
import threading
import time
import urllib.parse
from typing import Any

from jaxvid.data.videos import describe, review, work
from jaxvid.errors import UserError

_PAGE = pathlib.Path(__file__).with_name('review.html')
_LONGEST = 100_000  # bytes of an answer
_PIECE = 1 << 20


class Review:
  """What the page shows and takes.

  Attributes:
    target: the working folder.
    annotator: who answers.
    fps: of the clips.
  """

  def __init__(self, target: str, annotator: str):
    self.target, self.annotator = target, annotator
    self.path = review.path_of(target, annotator)
    settings = work.read_json(pathlib.Path(target) / work.SETTINGS)
    if settings is None:
      raise UserError(
        f'{target} holds no clips; make them with '
        '--config=configs/videos/folder.py'
      )
    self.fps = settings['clips']['fps']
    self._lock = threading.Lock()
    self._clips = {clip['id']: clip for clip in work.kept(target)}

  def clips(self) -> list[dict[str, Any]]:
    """All clips with their captions and this annotator's answers."""
    mine: dict[str, dict[str, Any]] = {}
    for item, answer in review.read(self.path).items():
      said = mine.setdefault(item.clip, {})
      said[f'{item.kind}/{item.chunk}'] = {
        'good': answer.good,
        'text': answer.text,
      }
    return [self._shown(c, mine.get(c['id'], {})) for c in self._clips.values()]

  def _shown(self, clip: work.Clip, mine: dict[str, Any]) -> dict[str, Any]:
    answers = work.read_json(describe.path_of(self.target, clip))
    said = answers['captions'] if answers else clip['captions']
    start = clip['start']
    return {
      'id': clip['id'],
      'mine': mine,
      'chunks': [
        {
          'start': (a - start) / self.fps,
          'end': (b - start) / self.fps,
          'caption': text,
        }
        for (a, b), text in zip(clip['chunks'], said, strict=True)
      ],
    }

  def video(self, clip: str) -> pathlib.Path | None:
    """The file of a clip; None if there is no such clip."""
    known = self._clips.get(clip)
    return work.clip_path(self.target, known) if known else None

  def answer(self, value: Any) -> None:
    """Keeps an answer; ValueError, KeyError or TypeError if it is none."""
    item, answer = review.parse(value)
    clip = self._clips[item.clip]
    if item.kind != 'clip' and not 0 <= item.chunk < len(clip['chunks']):
      raise ValueError(f'{item.clip} has no chunk {item.chunk}')
    with self._lock:
      review.append(self.path, item, answer._replace(time=time.time()))

  def agreement(self) -> list[dict[str, Any]]:
    """How pairs of annotators agree, as rows of a table."""
    return agreement_rows(self.target)


def agreement_rows(target: str) -> list[dict[str, Any]]:
  """A row per pair of annotators and kind of item that both judged."""
  return [
    {
      'one': one,
      'two': two,
      'kind': kind,
      'items': found.items,
      'share': found.share,
      'kappa': None if math.isnan(found.kappa) else found.kappa,
    }
    for (one, two), kinds in review.agreement(review.read_all(target)).items()
    for kind, found in kinds.items()
    if found.items
  ]


def server(state: Review, port: int) -> http.server.ThreadingHTTPServer:
  """A server on 127.0.0.1 that is not running yet; port 0 takes a free one.

  Raises:
    UserError: the port is taken.
  """
  try:
    return http.server.ThreadingHTTPServer(
      ('127.0.0.1', port), functools.partial(_Handler, state)
    )
  except OSError as error:
    raise UserError(f'cannot use port {port}: {error.strerror}') from error


class _Handler(http.server.BaseHTTPRequestHandler):
  """Four addresses; everything else is not there."""

  protocol_version = 'HTTP/1.1'

  def __init__(self, state: Review, *args):
    self._state = state
    super().__init__(*args)

  def log_message(self, format: str, *args) -> None:
    """Nothing: the terminal is for the address and for errors."""

  def do_GET(self) -> None:
    url = urllib.parse.urlsplit(self.path)
    if not self._local():
      self._send(403, 'text/plain', b'this page is for this machine alone')
    elif url.path == '/':
      self._send(200, 'text/html; charset=utf-8', _PAGE.read_bytes())
    elif url.path == '/clips':
      self._json(self._state.clips())
    elif url.path == '/agreement':
      self._json(self._state.agreement())
    elif url.path == '/video':
      wanted = urllib.parse.parse_qs(url.query).get('clip', [''])[0]
      path = self._state.video(wanted)
      if path is None or not path.is_file():
        self._send(404, 'text/plain', b'no such clip')
      else:
        self._file(path)
    else:
      self._send(404, 'text/plain', b'not here')

  def do_POST(self) -> None:
    length = int(self.headers.get('Content-Length') or 0)
    kind = self.headers.get_content_type()
    # Another site's page can send no JSON here without being asked first.
    if not self._local() or kind != 'application/json':
      self.close_connection = True
      self._send(403, 'text/plain', b'answers are JSON from this page')
      return
    if self.path != '/answer' or not 0 < length <= _LONGEST:
      self.close_connection = True
      self._send(404, 'text/plain', b'not here')
      return
    try:
      self._state.answer(json.loads(self.rfile.read(length)))
    except (ValueError, KeyError, TypeError):
      self._send(400, 'text/plain', b'no such item')
    except UserError as error:
      self._send(500, 'text/plain', str(error).encode())
    else:
      self._json({})

  def _local(self) -> bool:
    """Whether the page was asked for by this machine's own name."""
    host = self.headers.get('Host', '').rpartition(':')[0]
    return host in ('127.0.0.1', 'localhost')

  def _json(self, value: Any) -> None:
    self._send(200, 'application/json', json.dumps(value).encode())

  def _send(self, status: int, kind: str, body: bytes) -> None:
    self.send_response(status)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(body)))
    self.send_header('Cache-Control', 'no-store')
    self.end_headers()
    self.wfile.write(body)

  def _file(self, path: pathlib.Path) -> None:
    """An mp4, or the range of it that a player asks for."""
    size = path.stat().st_size
    first, last, status = 0, size - 1, 200
    asked = re.fullmatch(
      r'bytes=(\d+)-(\d*)', self.headers.get('Range', '').strip()
    )
    if asked and int(asked[1]) < size:
      first, status = int(asked[1]), 206
      last = min(int(asked[2] or last), last)
    self.send_response(status)
    self.send_header('Content-Type', 'video/mp4')
    self.send_header('Accept-Ranges', 'bytes')
    self.send_header('Content-Length', str(max(0, last - first + 1)))
    if status == 206:
      self.send_header('Content-Range', f'bytes {first}-{last}/{size}')
    self.end_headers()
    with path.open('rb') as file:
      file.seek(first)
      left = last - first + 1
      try:
        while left > 0 and (piece := file.read(min(_PIECE, left))):
          self.wfile.write(piece)
          left -= len(piece)
      except ConnectionError:
        self.close_connection = True  # The player looks elsewhere.
