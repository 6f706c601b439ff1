"""Json files in COCO's format, read in parts or record by record."""
