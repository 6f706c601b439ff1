"""XML files of VOC's layout, one a picture."""
