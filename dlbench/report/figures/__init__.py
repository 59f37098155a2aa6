"""Every figure, its parts and the house style."""
