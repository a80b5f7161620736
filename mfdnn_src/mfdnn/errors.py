"""The errors whose message is written for a person."""


class MfdnnError(Exception):
    """Something that the user can mend; the message is a sentence that says how."""


class DataError(MfdnnError):
    """A data set cannot be had."""


class RecordError(MfdnnError):
    """A record is missing, or is not what a record has to be."""


class CheckpointError(MfdnnError):
    """A checkpoint is damaged, or belongs to another run."""


class DivergenceError(MfdnnError, ArithmeticError):
    """The loss became infinite or NaN."""
