"""Reading and writing image files: XISF and FITS."""
