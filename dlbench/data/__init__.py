"""Data other than random numbers: image files on disk, and the digits of scikit-learn."""
