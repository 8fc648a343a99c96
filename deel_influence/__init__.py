"""Training-data attribution for Keras 3 on TensorFlow.

Which training examples made the model do this, which labels are wrong, and what would change
without them.
"""

from .backend import check_backend, is_command_line

__version__ = "0.1.0"

__all__ = ["__version__"]

if not is_command_line():  # which checks it where it can say so in one line
    check_backend()
