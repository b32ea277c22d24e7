"""How often the shapes-world probe reads real renders right.

  python benchmarks/probe.py
  python benchmarks/probe.py scripts

Draws `--clips` (500) of `--frames` (81) with one, two and three objects, sharp
and as a small autoencoder of about 30 dB would return them, and prints the
share of right readings, the error of the speed in px/frame and the time per
clip. `scripts` draws videos of 10 s in which one thing changes
and prints what a perfect model would reach in
`configs/evaluate/longlive.py:switch`.
"""

import argparse
import time

import numpy as np
from scipy import ndimage

from jaxvid.data.shapes import captions, render, script
from jaxvid.data.shapes import scene as scene_lib
from jaxvid.data.shapes.scene import SceneSettings
from jaxvid.evaluation import findings, probe
from jaxvid.tasks import scripted

# Standard deviations of blur (px) and noise (8-bit levels).
SPOILT = {'sharp': (0.0, 0.0), 'mild': (0.7, 4.0), 'hard': (1.2, 8.0)}


def spoil(frames, rng, blur, noise):
  """Blurs and adds noise; returns uint8 and the PSNR in dB."""
  if not noise:
    return frames, np.inf
  result = frames.astype(np.float32)
  result = ndimage.gaussian_filter(result, (0.5, blur, blur, 0), mode='wrap')
  result = np.clip(np.rint(result + rng.normal(0, noise, result.shape)), 0, 255)
  error = np.mean((result - frames) ** 2)
  return result.astype(np.uint8), 10 * np.log10(255**2 / error)


def measure(clips, frames, objects, kind):
  """One line of figures."""
  rng = np.random.default_rng([objects, clips])
  counts = tuple(float(i + 1 == objects) for i in range(objects))
  settings = SceneSettings(counts=counts, split='all')
  scores, quality, errors, spent = [], [], [], 0.0
  for _ in range(clips):
    scene = scene_lib.sample_scene(rng, settings)
    video, psnr = spoil(render.render(scene, frames), rng, *SPOILT[kind])
    quality.append(psnr)
    start = time.process_time()
    reading = probe.probe(video)
    spent += time.process_time() - start
    scores.append(probe.score(reading, scene))
    truth = {obj.colour: obj for obj in scene.objects}
    for found in reading.objects:
      obj = truth.get(found.colour)
      if obj and obj.motion == found.motion != 'still':
        speed = scene_lib.nominal_speed(obj)
        errors.append(abs(found.pixel_speed / speed - 1))
  shares = probe.accuracy(scores)
  figures = '  '.join(f'{k} {100 * v:6.2f}' for k, v in shares.items())
  print(
    f'{objects} {kind:5} {np.mean(quality):5.1f} dB  {figures}  '
    f'speed error median {100 * np.median(errors):.1f} % '
    f'p95 {100 * np.percentile(errors, 95):.1f} %  '
    f'{1000 * spent / clips:.0f} ms/clip',
    flush=True,
  )


def measure_scripts(count):
  """Two lines: how many changes show, and how much of the rest stays."""
  found = []
  for drawn in scripted.drawn('follow_up', 161, 2, 1, count, seed=1):
    before, after = drawn.shots
    said = captions.parse(before.caption), captions.parse(after.caption)
    if None not in said:
      video = script.render_script(drawn)
      shot = after.start, said[1]
      found.append(findings.after_switch(video, said[0], shot))
  for name in ('met', 'stayed'):
    values = [f[name] for f in found if not np.isnan(f[name])]
    share = 100 * np.mean(values)
    print(f'{name} {share:.1f} % of {len(values)} scripts', flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('what', nargs='?', choices=('clips', 'scripts'))
  parser.add_argument('--clips', type=int, help='500; of scripts 128')
  parser.add_argument('--frames', type=int, default=81)
  flags = parser.parse_args()
  if flags.what == 'scripts':
    measure_scripts(flags.clips or 128)
    return
  for kind in SPOILT:
    for objects in (1, 2, 3):
      measure(flags.clips or 500, flags.frames, objects, kind)


if __name__ == '__main__':
  main()
