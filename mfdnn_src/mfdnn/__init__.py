"""Support package of *Mathematical Foundations of Deep Neural Networks*.

What a page of the book teaches, the page defines. The package holds what would
distract from a page's point, and what later pages or full-scale runs need again.
Importing it imports no submodule.
"""

__version__ = "0.1.0"
