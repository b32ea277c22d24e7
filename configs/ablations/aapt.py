"""AAPT: forcing, recycling, chunks, sizes, and later remedies, on clips of 5 s.

  python -m jaxvid.main --config=configs/ablations/aapt.py
  python -m jaxvid.main --config=configs/ablations/aapt.py --config.explain

Student forcing against teacher forcing (supplement F, which the paper says
fails), recycled frames against zeros (G: motion suffers), chunks of one latent
against three, gradient through keys and values against all of it, one score
per clip and a warm-up by distribution matching (AAD-1: more motion), and
training at 64 px tested at 80 and 128 (the nearest to 1.15 and 2 times the
side that whole tokens allow). Clips start from the true first frame. Needs the
causal model of `configs/shapes/causal.py:nano`; the teacher of the warm-up is
the one that ships. On one CPU core an adaptation takes 3 to 4 minutes, a
distillation 1 to 2, an adversarial training 5 to 6 and a measurement 2 to 3 (8
at 128 px); there are 14 trainings and 11 measurements.
"""

from ml_collections import config_dict

from jaxvid.tasks import aapt_ablations
from jaxvid.tasks.aapt_ablations import arm
from jaxvid.tasks.ablations import claim

# Comparable: as far apart as two seeds may be.
EQUAL = 0.05


def get_config(arg: str = '') -> config_dict.ConfigDict:
  return config_dict.ConfigDict(
    {
      **aapt_ablations.base('aapt', 'AAPT (supplement D, F, G)', arg),
      'trainings': aapt_ablations.trainings(
        arg,
        'aapt_student',
        'aapt_teacher',
        'aapt_masked',
        'aapt_chunk',
        'aapt_all',
        'aapt_clip',
        'aapt_warm',
      ),
      'columns': ['right', 'shape', 'motion', 'pace', 'change', 'sharpness'],
      'curves': ['shape', 'pace', 'sharpness', 'change'],
      'arms': [
        arm('adapted_once', 'aapt_adapt'),
        arm('consistency', 'aapt_consistency', 'blurry'),
        arm('student', 'aapt_student'),
        arm('teacher', 'aapt_teacher', 'fails'),
        arm('masked', 'aapt_masked', 'no large motion'),
        arm('chunk_3', 'aapt_chunk', chunk=3),
        arm('gradient_all', 'aapt_all'),
        arm('clip_score', 'aapt_clip'),
        arm('warm_up', 'aapt_warm'),
        arm('student_80', 'aapt_student', height=80, width=80),
        arm('student_128', 'aapt_student', height=128, width=128),
      ],
      'claims': [
        claim('F: student forcing over teacher forcing', 'student', 'teacher'),
        claim('F: ... in the end', 'student', 'teacher', 'shape@last'),
        claim('G: recycling helps motion', 'student', 'masked', 'motion'),
        claim('G: recycling, larger motion', 'student', 'masked', 'pace'),
        claim(
          'D: sharper than consistency alone',
          'student',
          'consistency',
          'sharpness',
        ),
        claim('one frame as good as three', 'student', 'chunk_3', margin=EQUAL),
        claim(
          'AAD-1: one score per clip, motion', 'clip_score', 'student', 'pace'
        ),
        claim('AAD-1: warm-up, motion', 'warm_up', 'student', 'pace'),
        claim(
          'D: a larger size (80) without training',
          'student_80',
          'student',
          margin=EQUAL,
        ),
        claim(
          'D: twice the size without training',
          'student_128',
          'student',
          margin=EQUAL,
        ),
      ],
    }
  )
