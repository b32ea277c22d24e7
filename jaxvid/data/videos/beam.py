"""The same work over Apache Beam, for sets too large for one machine.

Workers share the folders of the job. Needs the extra `beam`.
"""

from collections.abc import Sequence

from jaxvid.data.videos import work
from jaxvid.errors import UserError

MISSING = "runner=beam needs Apache Beam: pip install 'jaxvid[beam]'"


def run(job: work.Job, names: Sequence[str], options: Sequence[str]) -> None:
  """Processes video files on whatever the pipeline options name.

  Args:
    job: what to do.
    names: of the files.
    options: flags of Beam, e.g. `--runner=FlinkRunner`.

  Raises:
    UserError: Beam is not installed.
  """
  try:
    import apache_beam as beam  # pyright: ignore[reportMissingImports]
    from apache_beam.options import (  # pyright: ignore[reportMissingImports]
      pipeline_options,
    )
  except ImportError:
    raise UserError(MISSING) from None
  settings = pipeline_options.PipelineOptions(list(options))
  with beam.Pipeline(options=settings) as pipeline:
    # Reshuffled, so that neighbours in the list go to different workers.
    todo = pipeline | beam.Create(list(names)) | beam.Reshuffle()
    _ = todo | beam.Map(process, job)


def process(name: str, job: work.Job) -> None:
  """`work.process`; a file that a retried bundle has done is left alone."""
  if not work.is_done(job, name):
    work.process(job, name)
