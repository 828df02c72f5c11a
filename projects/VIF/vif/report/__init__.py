"""What a trained model gets right and wrong, as one page and as pictures; needs matplotlib and Jinja2."""
