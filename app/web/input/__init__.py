"""Reading requests: forms, bodies, options, images, URLs."""
