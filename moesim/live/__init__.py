"""Torch side: refactorize a dense model into domain experts and capture its routing. Imported only when used."""
