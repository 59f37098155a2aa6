"""Where batches come from, beside random numbers: image files on disk, and the digits of scikit-learn."""
