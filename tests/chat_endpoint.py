"""A stub of an OpenAI-compatible chat endpoint, on this machine."""

import collections
import contextlib
import http.server
import json
import threading


class Endpoint:
  """A chat endpoint on this machine that answers in capitals, or as told.

  Attributes:
    asked: bodies of all requests.
    keys: their keys.
    faults: prompt -> list of (status, headers, body) to give first.
    limit: answer so many, then refuse; for jobs that die halfway.
    reply: body of a request -> what it answers.
  """

  def __init__(self):
    self.asked, self.keys = [], []
    self.faults = collections.defaultdict(list)
    self.reply = capitals
    self.limit = 10**6
    self.url = ''

  def texts(self):
    return [body['messages'][1]['content'] for body in self.asked]


def capitals(body):
  text = body['messages'][1]['content']
  return f'"{text.upper()}\n"'


@contextlib.contextmanager
def serve():
  """Yields an `Endpoint` that answers while the block runs."""
  served = Endpoint()

  class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
      pass

    def do_POST(self):
      assert self.path == '/v1/chat/completions'
      body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
      served.asked.append(body)
      served.keys.append(self.headers.get('Authorization'))
      content = served.reply(body)
      answer = {'choices': [{'message': {'content': content}}]}
      status, headers, data = 200, {}, json.dumps(answer)
      asked = str(body['messages'][1]['content'])
      if served.faults[asked]:
        status, headers, data = served.faults[asked].pop(0)
      elif len(served.asked) > served.limit:
        status, data = 403, '{"error": {"message": "no more money"}}'
      self.send_response(status)
      for name, value in headers.items():
        self.send_header(name, value)
      self.end_headers()
      with contextlib.suppress(BrokenPipeError):
        self.wfile.write(data.encode())

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  served.url = f'http://127.0.0.1:{server.server_port}/v1'
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  try:
    yield served
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
