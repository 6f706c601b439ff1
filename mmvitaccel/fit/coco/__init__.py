"""Json files of COCO's layout: read in parts, and record by record."""
