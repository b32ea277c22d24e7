"""Arms compared caption by caption; reports and plots of ablations."""

import math
import sys

import numpy as np
import pytest

from jaxvid.errors import UserError
from jaxvid.evaluation import comparison, plots, report
from jaxvid.evaluation.comparison import Claim, Measured
from jaxvid.evaluation.statistics import Interval

CLIPS = 64


def measured(shift=0.0, seed=0, chunks=8, **settings):
  """A report of `evaluate`: clips differ much, arms little."""
  rng = np.random.default_rng(5)
  own = np.random.default_rng((7, seed))
  hard = rng.standard_normal(CLIPS)
  pace = 1 + hard + shift + 0.01 * own.standard_normal(CLIPS)
  curves = pace[:, None] - 0.1 * np.arange(chunks)
  return {
    'settings': {'clips': CLIPS, 'objects': 1, 'seed': 0, **settings},
    'clips': CLIPS,
    'ticks_per_clip': 17,
    'calls_per_clip': 24,
    'values': {
      'clips': {'pace': pace.tolist(), 'shape': [1.0, 0.0] * (CLIPS // 2)},
      'chunks': {'pace': curves.tolist()},
    },
  }


def arms(**reports):
  return {
    name: Measured(name, dict(enumerate(found)))
    for name, found in reports.items()
  }


def test_differences_are_taken_caption_by_caption():
  found = arms(a=[measured(0.05)], b=[measured()])
  verdict = comparison.judge(Claim('a over b', ('a',), ('b',), 'pace'), found)
  assert verdict.answer == 'holds'
  assert verdict.difference.value == pytest.approx(0.05, abs=0.01)
  alone = comparison.interval(found['a'], 'pace')
  assert alone.high - alone.low > 20 * (
    verdict.difference.high - verdict.difference.low
  )
  other = Claim('b over a', ('b',), ('a',), 'pace')
  assert comparison.judge(other, found).answer == 'does not hold'
  near = Claim('b as a', ('b',), ('a',), 'pace', margin=0.1)
  assert comparison.judge(near, found).answer == 'holds'


def test_an_ordering_that_turns_with_the_seed_is_undecided():
  found = arms(
    a=[measured(0.3), measured(-0.1, 1)], b=[measured(), measured(0, 1)]
  )
  verdict = comparison.judge(Claim('x', ('a',), ('b',), 'pace'), found)
  assert verdict.difference.low > 0 and len(verdict.seeds) == 2
  assert verdict.answer == 'undecided'
  assert comparison.between_seeds(found.values(), 'pace') > 0.3
  # Seeds that one of them lacks are left out.
  found['b'].reports.pop(1)
  verdict = comparison.judge(Claim('x', ('a',), ('b',), 'pace'), found)
  assert verdict.answer == 'holds' and len(verdict.seeds) == 1


def test_sums_of_arms_and_arms_alone():
  found = arms(a=[measured(0.5)], b=[measured(0.1)], c=[measured()])
  both = Claim('gain', ('a', 'c'), ('b', 'b'), 'pace')
  assert comparison.judge(both, found).difference.value == pytest.approx(
    0.3, abs=0.02
  )
  falls = Claim('falls', ('a',), (), 'pace@drift')
  verdict = comparison.judge(falls, found)
  assert verdict.difference.value == pytest.approx(-0.7)
  assert verdict.answer == 'does not hold'


def test_places_along_a_clip():
  found = measured(chunks=16)
  first = comparison.values(found, 'pace@first')
  np.testing.assert_allclose(
    first, (np.array(found['values']['chunks']['pace'])[:, :2]).mean(1)
  )
  np.testing.assert_allclose(comparison.values(found, 'pace@departure'), 1.4)
  assert comparison.values(found, 'pace@3').shape == (CLIPS,)
  with pytest.raises(UserError, match='there are 16 chunks'):
    comparison.values(found, 'pace@16')
  with pytest.raises(UserError, match='set probe_every'):
    comparison.values(found, 'shape@last')
  for metric in ('colr', 'pace@end', 'right@last'):
    with pytest.raises(UserError, match='metric'):
      comparison.check_metric(metric)


def test_missing_values_are_left_out():
  found = measured()
  found['values']['clips']['pace'][0] = None
  found['values']['chunks']['pace'][0] = [None] * 8
  assert math.isnan(comparison.values(found, 'pace')[0])
  assert math.isnan(comparison.values(found, 'pace@last')[0])
  kept = arms(a=[found], b=[measured()])
  verdict = comparison.judge(Claim('x', ('a',), ('b',), 'pace'), kept)
  assert verdict.difference.count == CLIPS - 1


def test_other_captions_cannot_be_compared():
  found = arms(a=[measured()], b=[measured(seed=1)])
  claim = Claim('x', ('a',), ('b',), 'pace')
  found['b'].reports[0]['settings']['seed'] = 1
  with pytest.raises(UserError, match='other captions'):
    comparison.judge(claim, found)
  with pytest.raises(UserError, match="no arm 'c'"):
    comparison.judge(Claim('x', ('c',)), found)
  found['b'].reports.clear()
  assert comparison.judge(claim, found).answer == 'not measured'


def test_only_reports_with_the_values_of_their_clips_are_read(tmp_path):
  assert comparison.load(tmp_path / 'none.json') is None
  (tmp_path / 'a.json').write_text('{"clips": 3}')
  with pytest.raises(UserError, match=r'a.json is no report'):
    comparison.load(tmp_path / 'a.json')


def test_report_says_what_holds():
  found = arms(a=[measured(0.1), measured(0.1, 1)], b=[measured()], c=[])
  claims = [
    Claim('Table 1: a over b', ('a',), ('b',), 'pace'),
    Claim('Table 1: a over c', ('a',), ('c',), 'pace', 0.02),
  ]
  verdicts = [comparison.judge(claim, found) for claim in claims]
  text = report.markdown(
    'Title', list(found.values()), ['pace', 'shape'], verdicts, ['a.png']
  )
  lines = text.splitlines()
  assert lines[0] == '# Title'
  row = next(line for line in lines if line.startswith('| a |'))
  assert '| 64 | 2 | 17 | 24 |' in row and '50.0 [38.1, 61.9]' not in row
  assert any(line.startswith('| c | - | 0 |') for line in lines)
  assert '50.0 [38.1, 61.9]' in next(x for x in lines if x.startswith('| b |'))
  claim = next(line for line in lines if 'Table 1: a over b' in line)
  assert '**holds**' in claim and 'pace: a - b > 0' in claim
  assert '**not measured** | pace: a - c > -2.0' in text
  assert 'seed alone: pace' in text and text.endswith('![a](a.png)\n')


def test_plots(tmp_path):
  pytest.importorskip('matplotlib')
  points = [
    (float(i), Interval(i / 4, i / 4 - 1, i / 4 + 1, 9)) for i in (0, 1)
  ]
  nothing = (2.0, Interval(math.nan, math.nan, math.nan, 0))
  target = tmp_path / 'plots' / 'a.png'
  plots.draw(target, {'a': [*points, nothing], 'b': points}, 'x', 'y')
  assert target.read_bytes().startswith(b'\x89PNG')
  assert plots.available()


def test_plots_without_matplotlib_say_how_to_get_it(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  assert not plots.available()
  with pytest.raises(UserError, match=r'jaxvid\[plots\]'):
    plots.draw(tmp_path / 'a.png', {}, 'x', 'y')
