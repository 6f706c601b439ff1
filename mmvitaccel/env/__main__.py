"""Prints the report: ``python -m mmvitaccel.env``."""

import sys

from mmvitaccel.env.report import main

sys.exit(main())
