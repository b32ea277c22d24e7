"""Tick schedules: the values, the commit rules, and what people read."""

import golden
import numpy as np
import pytest

from jaxvid.diffusion import describe, schedule
from jaxvid.diffusion.describe import Spec, build, explain
from jaxvid.errors import UserError

RAW = {
  1: (1000,),
  2: (1000, 100),
  3: (1000, 750, 100),
  4: (1000, 750, 500, 100),
  5: (1000, 750, 500, 250, 100),
}
SHIFTED = {1000: 1000, 750: 937.5, 500: 833.3333, 250: 625, 100: 357.142857}


def counts(plan, num_chunks):
  return ''.join(str(len(plan.row(i))) for i in range(num_chunks))


@pytest.mark.parametrize('n', RAW)
def test_digit_rule(n):
  assert schedule.digit_ticks(n) == RAW[n]
  plan = build(Spec(name=str(n)))
  np.testing.assert_allclose(plan.ticks(0), [SHIFTED[t] for t in RAW[n]])
  for level in plan.row(0):
    assert level.sigma == level.t / 1000


def test_longer_videos_repeat_the_last_row_or_everything():
  assert counts(build(Spec('4322222')), 12) == '432222222222'
  assert counts(build(Spec('432', cyclic=True)), 8) == '43243243'
  assert counts(build(Spec('4322222', cyclic=True)), 14) == '43222224322222'


def test_commit_rules():
  last = build(Spec('43'))
  assert last.extra is None
  assert last.context(5) == last.row(1)[-1]
  assert [last.calls(i) for i in range(3)] == [4, 3, 3]
  clean = build(Spec('43', commit='clean'))
  assert clean.context(0) == (0, 0)
  assert [clean.calls(i) for i in range(3)] == [5, 4, 4]
  extra = build(Spec('43', commit='extra(100)'))
  assert extra.context(0).t == pytest.approx(357.142857)
  assert extra.calls(0) == 5
  assert build(Spec('43', commit='extra(0)')) == clean


def test_published_schedules():
  data = golden.load('scheduler/inputs_outputs.npz')
  legacy = build(Spec('legacy'))
  for chunk, name in enumerate(('block0', 'block1', 'rest', 'rest')):
    reference = data['shift5.diagonal.diag2.' + name]
    np.testing.assert_allclose(legacy.ticks(chunk), reference, rtol=1e-6)
  assert legacy.extra is None
  self_forcing = build(Spec('self_forcing'))
  np.testing.assert_allclose(
    self_forcing.ticks(3), data['shift5.warped.sf4'], rtol=1e-6
  )
  assert self_forcing.extra == schedule.CLEAN
  assert build(Spec('causvid')).ticks(0) == (1000, 757, 522)
  shifted = build(Spec('self_forcing', shift=8.0)).ticks(0)
  np.testing.assert_allclose(shifted, [1000, 960, 888.889, 727.273], rtol=1e-5)


def test_table_option_snaps_to_the_published_sigmas():
  data = golden.load('scheduler/inputs_outputs.npz')
  sigma = dict(
    zip(data['timestep'].tolist(), data['shift5.sigma_used'], strict=True)
  )
  plan = build(Spec('1000,982,625,20,1', warped=True, table=True))
  for level in plan.row(0):
    assert level.sigma == pytest.approx(float(sigma[level.t]), rel=1e-6)
  assert build(Spec('1000,20', warped=True)).row(0)[1].sigma == 0.02


def test_explicit_tables():
  plan = build(Spec('1000,750,500,250; 1000,100'))
  assert counts(plan, 4) == '4222'
  assert plan.extra == schedule.CLEAN
  np.testing.assert_allclose(plan.ticks(2), [1000, 357.142857])


def test_teacher_and_undistilled():
  data = golden.load('unipc/inputs_outputs.npz')
  teacher = build(Spec('teacher'))
  assert teacher.bidirectional and teacher.calls(0) == 50
  assert (
    list(teacher.ticks(0)) == data['unipc.shift5.steps50.timesteps'].tolist()
  )
  sigma = [level.sigma for level in teacher.row(0)]
  golden.assert_close(sigma, data['unipc.shift5.steps50.sigmas'][:-1])
  # Many steps: truncated time steps may repeat, noise levels never do.
  assert len(build(Spec('teacher', steps=500, shift=8.0)).row(0)) == 500
  euler = build(Spec('euler', shift=8.0))
  assert euler.update == 'euler' and euler.calls(9) == 17
  assert euler.ticks(0)[0] == 1000


def test_runs_group_chunks_with_equally_many_ticks():
  runs = build(Spec('4322222')).runs(7)
  assert [(r.start, r.count, r.num_ticks) for r in runs] == [
    (0, 1, 4), (1, 1, 3), (2, 5, 2),
  ]  # fmt: skip
  last = runs[-1]
  np.testing.assert_allclose(last.t, [[1000, 357.142857]] * 5)
  np.testing.assert_allclose(last.sigma, last.t / 1000)
  np.testing.assert_allclose(last.next_sigma, [[0.357142857, 0]] * 5)
  np.testing.assert_allclose(last.context_t, [357.142857] * 5)
  tail = build(Spec('432', cyclic=True)).runs(4, start=5)
  assert [(r.start, r.num_ticks) for r in tail] == [
    (5, 2), (6, 4), (7, 3), (8, 2),
  ]  # fmt: skip
  clean = build(Spec('self_forcing')).runs(80)
  assert len(clean) == 1 and clean[0].t.shape == (80, 4)
  assert not clean[0].context_t.any()


def test_schedules_are_hashable_and_equal_by_value():
  assert hash(build(Spec('432'))) == hash(build(Spec('432')))
  assert build(Spec('432')) != build(Spec('432', shift=8.0))


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (Spec('4302'), "digit '0' in place 3"),
    (Spec('46'), "nearest: '45'"),
    (Spec(''), 'unknown'),
    (Spec('self_forcng'), "did you mean 'self_forcing'"),
    (Spec('1000,1000'), 'must fall'),
    (Spec('1000,200,500'), 'must fall'),
    (Spec('1000,0'), r'\(0, 1000\]'),
    (Spec('1000,nan'), r'\(0, 1000\]'),
    (Spec('1200,100'), r'\(0, 1000\]'),
    (Spec('500,100'), 'first time step must be 1000'),
    (Spec('1000,100;'), 'no ticks'),
    (Spec('1000,abc'), 'no list of numbers'),
    (Spec('43', shift=-1.0), 'shift must be positive'),
    (Spec('43', commit='dirty'), "commit rule 'dirty'"),
    (Spec('43', commit='extra(1000)'), 'from 0 to 999'),
    (Spec('teacher', steps=-1), '1 to 500 steps'),
    (Spec('teacher', solver='heun'), "'unipc' or 'euler'"),
  ],
)
def test_impossible_schedules_are_refused_in_one_line(spec, message):
  with pytest.raises(UserError, match=message) as error:
    build(spec)
  assert '\n' not in str(error.value)


def test_empty_schedule_is_refused():
  with pytest.raises(UserError, match='no ticks'):
    schedule.explicit([])


def test_explain_diagonal():
  text = explain(build(Spec('4322222')), 7)
  lines = text.splitlines()
  assert 'shift 5' in lines[0]
  assert lines[2].split()[:2] == ['0', '0-2']
  assert '833.333 (500, 0.8333)' in lines[2]
  assert 'tick 4 (t 357.143)' in lines[2]
  assert lines[4].split()[:2] == ['2-6', '6-20']
  assert '5 x 2' in lines[4]
  assert '17 ticks + 0 extra = 17 denoiser calls' in lines[5]
  assert lines[5].endswith(': 34')


def test_explain_counts_guidance_and_clean_ticks():
  text = explain(build(Spec('self_forcing')), 7)
  assert '28 ticks + 7 extra = 35 denoiser calls' in text
  assert 'extra tick at t 0' in text
  text = explain(build(Spec('euler')), 2, guidance=4.0)
  assert '... 11 more ...' in text
  assert '32 ticks + 2 extra x 2 (guidance) = 68 denoiser calls' in text
  text = explain(build(Spec('teacher')), 1, chunk=21, guidance=5.0)
  assert '= 100 denoiser calls' in text and 'whole clip' in text
  assert set(describe.NAMES) >= {'teacher', 'legacy'}
