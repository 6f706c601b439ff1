"""Reading of XML files in VOC's format, one per picture."""
