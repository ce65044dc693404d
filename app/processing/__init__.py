"""Images and numbers: Pillow and NumPy alone."""
