"""The one door for images: DICOM (or PNG/JPEG) bytes in, model input and public metadata out."""
