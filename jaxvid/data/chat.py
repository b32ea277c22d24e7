"""A client for any OpenAI-compatible chat endpoint; standard library only."""

import base64
import dataclasses
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from jaxvid.errors import UserError

# Try again later; anything else of 400 and above is the request's fault.
_PASSING = (408, 409, 425, 429)
_LONGEST_WAIT = 60.0


@dataclasses.dataclass(frozen=True)
class ChatConfig:
  """An endpoint and how it is asked.

  Attributes:
    base_url: up to, without, `/chat/completions`.
    model: its name there; empty: nothing is asked.
    api_key_env: environment variable that holds the key; empty: no key.
    temperature: of the answers.
    max_tokens: of an answer.
    timeout: seconds to wait for one.
    retries: how often a failed request is repeated.
    backoff: seconds before the first repetition, doubled before each next.
  """

  base_url: str = 'http://localhost:8000/v1'
  model: str = ''
  api_key_env: str = ''
  temperature: float = 0.7
  max_tokens: int = 512
  timeout: float = 120.0
  retries: int = 6
  backoff: float = 1.0

  def __post_init__(self):
    if not self.base_url.startswith(('http://', 'https://')):
      raise UserError(
        f'base_url must begin with http:// or https://, not {self.base_url!r}'
      )
    if self.timeout <= 0 or self.retries < 0 or self.backoff < 0:
      raise UserError(
        'timeout must be > 0, retries and backoff >= 0, not '
        f'{self.timeout:g}, {self.retries} and {self.backoff:g}'
      )


class _Later(Exception):
  """A failure that may pass; holds seconds to wait, if the server said so."""

  def __init__(self, reason: str, wait: float = 0.0):
    super().__init__(reason)
    self.wait = wait


def read_key(config: ChatConfig) -> str:
  """The key, '' if none is wanted; UserError if it is not set."""
  if not config.api_key_env:
    return ''
  key = os.environ.get(config.api_key_env, '').strip()
  if not key:
    raise UserError(
      f'the environment variable {config.api_key_env} (api_key_env) is not set'
    )
  return key


def ask(
  config: ChatConfig,
  instruction: str,
  text: str,
  sleep: Callable[[float], Any] = time.sleep,
  images: Sequence[bytes] = (),
) -> str:
  """The model's answer to one text; '' where it gives none.

  Busy servers, broken connections and time-outs are met with patience:
  exponentially longer waits, by chance up to half as long, and never shorter
  than the server asks for.

  Args:
    config: the endpoint.
    instruction: the system message.
    text: the user's message.
    sleep: waits; for tests.
    images: JPEG files that go with the text, for models that see.

  Raises:
    UserError: the server refuses the request, or fails again and again.
  """
  request = _request(config, instruction, text, images)
  for attempt in range(config.retries + 1):
    try:
      return _send(request, config.timeout)
    except _Later as error:
      failure = error
    if attempt < config.retries:
      wait = min(config.backoff * 2**attempt, _LONGEST_WAIT)
      wait *= random.uniform(0.5, 1.0)
      sleep(max(wait, min(failure.wait, _LONGEST_WAIT)))
  raise UserError(
    f'{request.full_url} failed {config.retries + 1} times: {failure}'
  )


def _request(
  config: ChatConfig, instruction: str, text: str, images: Sequence[bytes]
) -> urllib.request.Request:
  content: Any = text
  if images:
    urls = (
      'data:image/jpeg;base64,' + base64.b64encode(image).decode()
      for image in images
    )
    content = [{'type': 'text', 'text': text}]
    content += [{'type': 'image_url', 'image_url': {'url': u}} for u in urls]
  body = {
    'model': config.model,
    'messages': [
      {'role': 'system', 'content': instruction},
      {'role': 'user', 'content': content},
    ],
    'temperature': config.temperature,
    'max_tokens': config.max_tokens,
  }
  headers = {'Content-Type': 'application/json'}
  if key := read_key(config):
    headers['Authorization'] = f'Bearer {key}'
  url = config.base_url.rstrip('/') + '/chat/completions'
  return urllib.request.Request(url, json.dumps(body).encode(), headers)


def _send(request: urllib.request.Request, timeout: float) -> str:
  """One attempt; `_Later` if another may do better."""
  try:
    with urllib.request.urlopen(request, timeout=timeout) as response:
      answer = json.loads(response.read())
  except urllib.error.HTTPError as error:
    with error:
      reason = f'{error.code} {_explanation(error)}'
      if error.code not in _PASSING and error.code < 500:
        raise UserError(f'{request.full_url} says {reason}') from error
      wait = error.headers.get('Retry-After', '')
    raise _Later(reason, float(wait) if wait.isdigit() else 0.0) from error
  except (OSError, http.client.HTTPException) as error:
    reason = getattr(error, 'reason', None) or error
    raise _Later(str(reason) or type(error).__name__) from error
  except ValueError as error:
    raise _Later('the answer is no JSON') from error
  try:
    return answer['choices'][0]['message']['content'] or ''
  except (KeyError, IndexError, TypeError) as error:
    raise UserError(
      f'{request.full_url} is no chat endpoint: no choices in its answer'
    ) from error


def _explanation(error: urllib.error.HTTPError) -> str:
  """What the server says of an error, in one line."""
  try:
    text = error.read(10_000).decode(errors='replace')
  except (OSError, http.client.HTTPException):
    return error.reason
  try:
    text = json.loads(text)['error']['message']
  except (ValueError, KeyError, TypeError):
    pass
  return ' '.join(str(text).split())[:200] or error.reason
