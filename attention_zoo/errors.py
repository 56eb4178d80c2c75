"""The one exception for what a user can put right."""


class UserError(ValueError):
  """A file, a flag, a config or a work directory is wrong; the message names it and says what to do.

  Entry points print the message without a traceback and exit with code 2.
  """
