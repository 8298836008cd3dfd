"""Faces: landmarks, alignment, masks and warps, embeddings."""
