"""Version of dlbench; a separate file, so that the build reads it without imports."""

__version__ = "0.1.0"
