"""The shapes world: captioned toy video with exact ground truth."""
