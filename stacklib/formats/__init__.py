"""Read and write image files: XISF and FITS."""
