"""The errors a user can meet. Each message says: where, what was found, what was expected, what to do next."""


class LapwingError(Exception):
    """Something the user can mend. The command line prints its one-line message and exits with code 2."""


class DataError(LapwingError):
    """A recording that cannot be read or used as asked."""


class SpecError(LapwingError):
    """An observation, action or robot that does not match the spec it is meant for."""


class ConfigError(LapwingError):
    """A setting outside its range, or settings that exclude each other."""


class CheckpointError(LapwingError):
    """A run or checkpoint that is missing, incomplete or already there."""


class WorldError(LapwingError):
    """A simulated world that cannot start here: a missing package, graphics library or unknown name."""


class RobotError(LapwingError):
    """A robot that does not answer, or must not move as asked."""
