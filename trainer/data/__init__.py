"""Videos on disk to normalised clips: layout, decoding, cache, sampling, augmentation, batches."""
