"""Errors and warnings that speak to the person at the keyboard."""

import re


class UserError(Exception):
  """Bad input, said in one clear line.

  The command line prints the message and exits with code 2, without a
  traceback. Raise it for anything a user can mend: a wrong value, a missing
  file, a checkpoint of another model. Anything else is a defect and should
  raise its own exception.
  """


class UserNotice(UserWarning):
  """What a person should know although the job goes on.

  The command line prints the message as one line. Everywhere else it is a
  Python warning like any other.
  """


def check_regex(name: str, value: str) -> None:
  """A setting that must be a regular expression; UserError if it is none."""
  try:
    re.compile(value)
  except re.error as error:
    raise UserError(
      f'{name}={value!r} is no regular expression: {error}'
    ) from None
