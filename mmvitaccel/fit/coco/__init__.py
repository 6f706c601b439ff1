"""Reading of json files in COCO's format, in parts or record by record."""
